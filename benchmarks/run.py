"""The performance figures this project quotes, measured on this machine: `make bench`.

Prints one JSON line of details per benchmark and a table of all figures in the end, and writes the
table to `results.json`. Some benchmarks run for minutes: name those you want.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ada_resampling import ada_resampling
from classifier_training import classifier_training
from controller_fleet import controller_fleet
from dense_labelling import dense_labelling
from feature_shards import feature_shards
from figures import Figure, print_table, to_json
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
    """Run the benchmarks named on the command line, or all; only all replace `results.json`."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    found: list[Figure] = []
    for name in names:
        figures, details = BENCHMARKS[name]()
        print(json.dumps({"benchmark": name, **details}), flush=True)
        found += figures
    print_table(found)
    if not sys.argv[1:]:
        RESULTS.write_text(to_json(found))


if __name__ == "__main__":
    main()
