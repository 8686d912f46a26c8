"""The performance figures this project quotes, measured on this machine: `make bench`.

Prints one JSON line of details per benchmark and a table of all figures in the end. Each benchmark
that ends replaces its rows of `results.json`; one that fails leaves them, and the others go on.
Some run for minutes: name those you want.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ada_resampling import ada_resampling
from classifier_training import classifier_training
from controller_fleet import controller_fleet
from dense_labelling import dense_labelling
from feature_shards import feature_shards
from figures import Figure, print_table, rows
from generator_forward import generator_forward
from pair4096 import pair4096
from store_transfer import store_transfer
from telemetry_overhead import telemetry_overhead
from tile4096_memory import tile4096_memory
from tiling import tiling
from training_step import training_step

RESULTS = Path(__file__).with_name("results.json")

Benchmark = Callable[[], tuple[list[Figure], dict[str, object]]]
"""Its figures, and details: sizes, threads, what was compared."""

BENCHMARKS: Mapping[str, Benchmark] = {
    "ada-resampling": ada_resampling,
    "classifier-training": classifier_training,
    "controller-fleet": controller_fleet,
    "dense-labelling": dense_labelling,
    "feature-shards": feature_shards,
    "generator-forward": generator_forward,
    "pair-4096": pair4096,
    "store-transfer": store_transfer,
    "telemetry-overhead": telemetry_overhead,
    "tile4096-memory": tile4096_memory,
    "tiling": tiling,
    "training-step": training_step,
}


def main() -> None:
    """Run the benchmarks named on the command line, or all; exit code 1 if one failed."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    found: list[Figure] = []
    failed = []
    for name in names:
        try:
            figures, details = BENCHMARKS[name]()
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(json.dumps({"benchmark": name, **details}), flush=True)
        found += figures
        _keep(name, figures)
    print_table(found)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _keep(name: str, figures: list[Figure]) -> None:
    """Replace a benchmark's rows; those of benchmarks that are no more go."""
    kept: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    mine = [{"benchmark": name, "measured": today, **row} for row in rows(figures)]
    others = [row for row in kept if row.get("benchmark") in BENCHMARKS.keys() - {name}]
    order = list(BENCHMARKS)
    ordered = sorted([*others, *mine], key=lambda row: order.index(row["benchmark"]))
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
