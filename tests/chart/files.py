"""Writes the files of the chart that are made of others: `python -m chart.files`, or with `--check`
only says which are stale. `make chart-files` is this."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from chart.values_schema import schema
from chart.values_table import filled, tables
from hdgan.core.schema import write_generated

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "hdgan"
CRD = "datasetruns.hdgan.io.yaml"


def contents() -> dict[Path, str]:
    """What is to be in each file."""
    page = CHART / "README.md"
    made = schema()
    return {
        CHART / "values.schema.json": json.dumps(made, indent=1) + "\n",
        page: filled(page.read_text(encoding="utf-8"), tables(CHART / "values.yaml", made)),
        CHART / "files" / CRD: (ROOT / "k8s" / "crd" / CRD).read_text(encoding="utf-8"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check compare them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chart.files", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    options = parser.parse_args(arguments)
    codes = [
        write_generated(file, text, "make chart-files", check=options.check)
        for file, text in contents().items()
    ]
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
