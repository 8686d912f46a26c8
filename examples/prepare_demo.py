"""Writes the demo's effective run file: examples/demo.yaml, other slides, or from scratch.

python examples/prepare_demo.py demo/run.yaml [--slides DIR] [--from-scratch]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).with_name("demo.yaml")
# The run that made the shipped networks: from scratch, the demo trains as they were trained.
FROM_SCRATCH_RUN = Path(__file__).with_name("skin-64") / "run.yaml"
INIT_FILES = ("generator.safetensors", "discriminator.safetensors", "architecture.json")
# What OpenSlide opens by its name. Only for counting: the tiler decides what it can read.
SLIDE_SUFFIXES = frozenset(
    {".bif", ".dcm", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu"}
)
HEADER = (
    "# Made by examples/prepare_demo.py from examples/demo.yaml at every `make demo`: edit that.\n"
)

Document = dict[str, Any]


class PrepareError(Exception):
    """The demo cannot be set up as asked; the message says why and what to do."""


def effective_run(
    template: Document,
    *,
    slides: str | None = None,
    slide_count: int = 1,
    scratch_trainer: Document | None = None,
) -> Document:
    """The demo's run for `slide_count` slides at `slides` (None: the template's own slide).

    With several slides whole cases can be held out; with one, only blocks of it. Given
    `scratch_trainer`, that is the ganTrainer section: nothing to start from, and longer.
    """
    run = deepcopy(template)
    spec = run["spec"]
    if slides is not None:
        spec["slides"]["uri"] = slides
        spec["tiler"]["holdout"] = "case" if slide_count > 1 else "spatial"
    if scratch_trainer is not None:
        spec["ganTrainer"] = deepcopy(scratch_trainer)
    return run


def rebase(run: Document, old: Path, new: Path) -> Document:
    """The same run with its relative paths, which started in folder `old`, starting in `new`."""
    run = deepcopy(run)
    spec = run["spec"]
    for section, field in ((spec["slides"], "uri"), (spec["ganTrainer"], "initFrom")):
        value = section.get(field)
        if value is not None and "://" not in value and not os.path.isabs(value):
            section[field] = Path(os.path.relpath(old / value, new)).as_posix()
    return run


def count_slides(folder: Path) -> int:
    """How many slides `folder` (or a single file) holds, by their names; PrepareError if none."""
    if folder.is_file():
        return 1
    if not folder.is_dir():
        raise PrepareError(f"SLIDES={folder}: there is no such folder")
    count = sum(path.suffix.lower() in SLIDE_SUFFIXES for path in folder.iterdir())
    if count == 0:
        suffixes = " ".join(sorted(SLIDE_SUFFIXES))
        raise PrepareError(f"SLIDES={folder}: holds no slide (looked for {suffixes})")
    return count


def prepare(
    run_file: Path,
    *,
    template: Path = TEMPLATE,
    slides: Path | None = None,
    from_scratch: bool = False,
) -> None:
    """Write `run_file` (its folder is made). Raises PrepareError.

    A file that would not change is not written again.
    """
    document = yaml.safe_load(template.read_text(encoding="utf-8"))
    run = effective_run(
        document,
        slides=None if slides is None else str(slides.resolve()),
        slide_count=1 if slides is None else count_slides(slides),
        scratch_trainer=_scratch_trainer() if from_scratch else None,
    )
    _check_init(run, template.resolve().parent)
    run_file.parent.mkdir(parents=True, exist_ok=True)
    run = rebase(run, template.resolve().parent, run_file.resolve().parent)
    text = HEADER + yaml.safe_dump(run, sort_keys=False, allow_unicode=True)
    if not run_file.is_file() or run_file.read_text(encoding="utf-8") != text:
        part = run_file.with_name(run_file.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(run_file)


def _scratch_trainer() -> Document:
    document = yaml.safe_load(FROM_SCRATCH_RUN.read_text(encoding="utf-8"))
    trainer: Document = document["spec"]["ganTrainer"]
    return trainer


def _check_init(run: Document, folder: Path) -> None:
    init = run["spec"]["ganTrainer"].get("initFrom")
    if init is None or "://" in init:
        return
    missing = [name for name in INIT_FILES if not (folder / init / name).is_file()]
    if missing:
        raise PrepareError(
            f"{folder / init}: the generator the demo starts from lacks {', '.join(missing)}."
            " Restore the folder (git checkout), or train without it, which takes hours:"
            " make demo FROM_SCRATCH=1"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the run file of the demo.")
    parser.add_argument("run_file", type=Path)
    parser.add_argument("--slides", type=Path, help="folder with your own slides")
    parser.add_argument("--from-scratch", action="store_true", help="train from noise: hours")
    options = parser.parse_args(arguments)
    try:
        prepare(options.run_file, slides=options.slides, from_scratch=options.from_scratch)
    except PrepareError as error:
        sys.stderr.write(f"prepare_demo: {error}\n")
        return 66
    return 0


if __name__ == "__main__":
    sys.exit(main())
