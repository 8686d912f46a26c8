"""Writes the files of the chart that are made of others: `python -m chart.files`, or with `--check`
only says which are stale. `make chart-files` is this."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from chart.alert_rules import local_rules
from chart.dashboards.boards import BOARDS
from chart.helms import Helm, NoHelm, helms
from chart.values_schema import schema
from chart.values_table import filled, tables
from hdgan.core.schema import write_generated

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "hdgan"
CRD = "datasetruns.hdgan.io.yaml"
DASHBOARDS = CHART / "files" / "dashboards"
LOCAL_ALERTS = ROOT / "docs" / "alerts.yaml"


def contents() -> dict[Path, str]:
    """What is to be in each file that needs no Helm."""
    page = CHART / "README.md"
    made = schema()
    return {
        CHART / "values.schema.json": json.dumps(made, indent=1) + "\n",
        page: filled(page.read_text(encoding="utf-8"), tables(CHART / "values.yaml", made)),
        CHART / "files" / CRD: (ROOT / "k8s" / "crd" / CRD).read_text(encoding="utf-8"),
        **{DASHBOARDS / f"{board.name}.json": board.text() for board in BOARDS},
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check compare them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chart.files", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    options = parser.parse_args(arguments)
    made = contents()
    codes = [_written(file, text, options.check) for file, text in made.items()]
    # After the others, because Helm reads some of them.
    try:
        newest = Helm(list(helms().values())[-1])
    except NoHelm as error:
        print(f"{LOCAL_ALERTS.relative_to(ROOT)}: {error}", file=sys.stderr)
        return 1
    return max(*codes, _written(LOCAL_ALERTS, local_rules(newest), options.check))


def _written(file: Path, text: str, check: bool) -> int:
    return write_generated(file, text, "make chart-files", check=check)


if __name__ == "__main__":
    raise SystemExit(main())
