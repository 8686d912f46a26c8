"""Installs one layer of an image and puts what is new into /layers, from where it is copied.

    python3 images/layer.py packages core    third-party packages of a room
    python3 images/layer.py code extractor   our own rooms for that image

Runs in the build stage as root, from the folder the sources were copied to. Everything goes into
the virtual environment /opt/hdgan, which has no pip; the pip that fills it is in /opt/tools and
stays behind. Each layer holds the files that were not in the ones before, compiled and with one
fixed time, so that equal contents give equal layers, whoever builds them and when.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import rooms

TOOLS = Path("/opt/tools")
TARGET = Path("/opt/hdgan")
LAYERS = Path("/layers")
CONSTRAINTS = rooms.ROOT / "constraints.txt"
PACKED = 315_532_800
"""The time all packed files get (1980-01-01 UTC, the first that a zip file can hold); what has
another time is new."""
UNUSED = (
    "torch/include",
    "torch/test",
    "torch/bin/*[Tt]est*",
    "pyarrow/include",
    "pyarrow/*flight*",
)
"""Below site-packages: what is there for compilers and for the packages' own tests, and Arrow's
network protocol with the 33 MB it is made of."""


def main(arguments: list[str]) -> None:
    """Make the layer that was asked for."""
    match arguments:
        case ["packages", room]:
            prepare()
            install_packages(room)
            pack(room)
        case ["code", room]:
            prepare()
            install_code(room)
            pack("code")
        case _:
            raise SystemExit(__doc__)


def prepare() -> None:
    """The environment to fill and the tools to fill it with, unless they are there."""
    if not (TARGET / "bin" / "python").exists():
        _run(sys.executable, "-m", "venv", "--without-pip", str(TARGET))
    if not (TOOLS / "bin" / "pip").exists():
        _run(sys.executable, "-m", "venv", str(TOOLS))
        _pip("install", "-c", str(CONSTRAINTS), "hatchling")


def install_packages(room: str) -> None:
    """The room's third-party packages. Torch comes first and alone: TORCH says which one and
    TORCH_INDEX where else to look for it, and that index decides about nothing else."""
    wanted = rooms.packages(room)
    if "torch" in wanted:
        index = os.environ.get("TORCH_INDEX")
        extra = ["--extra-index-url", index] if index else []
        _install(*extra, *shlex.split(os.environ.get("TORCH") or "torch"))
    _install(*wanted)


def install_code(room: str) -> None:
    """Our rooms, from their sources and nowhere else: anyone could take our names on an index."""
    wheels = LAYERS / "wheels"
    folders = [str(rooms.folder_of(one)) for one in rooms.rooms(room)]
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(wheels), *folders)
    _install("--no-deps", "--no-index", *sorted(map(str, wheels.glob("*.whl"))))
    shutil.rmtree(wheels)
    shutil.copy(rooms.ROOT / "LICENSE", TARGET)
    _pip("--python", str(TARGET / "bin" / "python"), "check")


def pack(name: str) -> None:
    """Compile what is new and link it into the layer's folder."""
    for path in _unused():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _compile([path for path in _new_files() if path.suffix == ".py"])
    layer = LAYERS / name
    layer.mkdir(parents=True)
    size = 0
    for path in _new_files():
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)
            size += path.stat().st_size
        os.utime(path, (PACKED, PACKED), follow_symlinks=False)
        link = layer / path.relative_to("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link, follow_symlinks=False)
    for folder, _, _ in os.walk(layer, topdown=False):
        os.utime(folder, (PACKED, PACKED))
    print(f"layer {name}: {size / 1e6:.0f} MB", flush=True)


def _compile(sources: list[Path]) -> None:
    # Unchecked: nothing is written at run time, so that sources cannot change either. Packages
    # bring files that only a newer Python can read; those stay as they are, as pip leaves them.
    subprocess.run(
        [
            *(str(TARGET / "bin" / "python"), "-m", "compileall", "-qq", "-j", "0", "-i", "-"),
            *("--invalidation-mode", "unchecked-hash"),
        ],
        input="".join(f"{path}\n" for path in sources),
        text=True,
        check=False,
    )


def _new_files() -> list[Path]:
    found = []
    for folder, folders, files in os.walk(TARGET):
        # A folder that is a link (lib64) is among the folders, and is not walked into.
        links = [one for one in folders if os.path.islink(os.path.join(folder, one))]
        found += [Path(folder, one) for one in (*files, *links)]
    return sorted(path for path in found if int(path.lstat().st_mtime) != PACKED)


def _unused() -> list[Path]:
    found: set[Path] = set()
    for site in TARGET.glob("lib/python3*/site-packages"):
        for pattern in UNUSED:
            found.update(site.glob(pattern))
        found.update(path for path in site.rglob("tests") if path.is_dir())
    # What lies in another folder of them goes with it.
    return sorted(path for path in found if found.isdisjoint(path.parents))


def _install(*arguments: str) -> None:
    target = ("--python", str(TARGET / "bin" / "python"))
    _pip(*target, "install", "--no-compile", "-c", str(CONSTRAINTS), *arguments)


def _pip(*arguments: str) -> None:
    quiet = ("--disable-pip-version-check", "--no-input", "--no-cache-dir", "-q")
    _run(str(TOOLS / "bin" / "pip"), *quiet, *arguments)


def _run(*command: str) -> None:
    ended = subprocess.run(command, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"images/layer.py: exit code {ended.returncode}: {shlex.join(command)}")


if __name__ == "__main__":
    main(sys.argv[1:])
