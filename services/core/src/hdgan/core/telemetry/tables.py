"""The tables of `docs/metrics.md`, from the catalogue.

`python -m hdgan.core.telemetry.tables FILE` writes them between their marks; with `--check` it only
says whether the file has them."""

from __future__ import annotations

import argparse
from pathlib import Path

from hdgan.core.schema import write_generated
from hdgan.core.telemetry.catalogue import ALL, Metric

COMMAND = "python -m hdgan.core.telemetry.tables docs/metrics.md"
END = "<!-- end -->"


def table(place: str) -> str:
    """Rows of the metrics that are served at `place`."""
    rows = ["| metric | type | labels | |", "|---|---|---|---|"]
    rows += [_row(one) for one in ALL if place in one.places]
    return "\n".join(rows)


def filled(page: str) -> str:
    """The page with each table between its marks. ValueError if marks are missing."""
    for place in ("stage", "run", "dataset", "controller"):
        begin = f"<!-- Written by hdgan.core.telemetry.tables: {place} -->"
        before, mark, rest = page.partition(begin)
        _, end, after = rest.partition(END)
        if not (mark and end):
            raise ValueError(f"the page has no {begin} ... {END}")
        page = f"{before}{begin}\n{table(place)}\n{END}{after}"
    return page


def _row(one: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in one.labels)
    return f"| `{one.name}` | {one.kind} | {labels} | {one.help.replace('|', chr(92) + '|')} |"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with --check compare it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args(arguments)
    text = filled(options.file.read_text(encoding="utf-8"))
    return write_generated(options.file, text, COMMAND, check=options.check)


if __name__ == "__main__":
    raise SystemExit(main())
