"""Converts a network file in a process of its own; the result appears whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hdgan.core.atomic_file import explain_os_error, sync_folder
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import JsonError, parse_object

MAX_BYTES = 8 << 30
SECONDS = 1200
MAX_ANSWER_BYTES = 16 << 20
# A converter must know no more of its surroundings than where Python finds its modules.
PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")


def convert_stylegan2_pickle(source: Path, out: Path) -> dict[str, object]:
    """Convert NVIDIA's pickle `source` into the folder `out`; returns the architecture.

    `out` then holds architecture.json, generator.safetensors (the averaged generator),
    generator-raw.safetensors (if the pickle has it), discriminator.safetensors and source.json.

    Raises:
        RequestError: `source` is refused, or `out` exists and is not empty.
    """
    try:
        if not source.is_file():
            raise RequestError(f"{source}: there is no such file")
        size = source.stat().st_size
        if size > MAX_BYTES:
            raise RequestError(f"{source}: has {size} bytes, more than {MAX_BYTES}: refused")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RequestError(f"{out}: exists and is not an empty folder; name another")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            made = Path(folder, "made")
            made.mkdir()
            architecture, digest = _run_converter(source, made)
            about = {
                "what": "StyleGAN2-ADA network pickle, converted without running its code",
                "file": source.name,
                "sha256": digest,
                "bytes": size,
            }
            (made / "source.json").write_text(json.dumps(about, indent=2) + "\n")
            if out.exists():
                out.rmdir()
            os.replace(made, out)
            sync_folder(out.parent)
    except OSError as error:
        raise explain_os_error(error, "convert", source) from error
    return architecture


def _run_converter(source: Path, folder: Path) -> tuple[dict[str, object], str]:
    """The architecture, and the digest of what was read."""
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "hdgan.nets.convert.converter_process",
                str(source),
                str(folder),
            ],
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RequestError(f"{source}: not converted within {SECONDS} s: refused") from None
    try:
        answer = parse_object(done.stdout, max_bytes=MAX_ANSWER_BYTES)
    except JsonError:
        answer = None
    if answer is None:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise RequestError(
            f"{source}: the converter ended with code {done.returncode}: {last[0][:300]}"
        )
    if "error" in answer:
        raise RequestError(f"{source}: {answer['error']}")
    return dict(answer["architecture"]), str(answer["sha256"])
