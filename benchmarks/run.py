"""The performance figures this project quotes, measured on this machine: `make bench`.

Prints one JSON line per figure, so that results can be kept and compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

from ada_resampling import ada_resampling
from dense_labelling import dense_labelling
from feature_rows import feature_rows
from generator_forward import generator_forward
from tile4096_memory import tile4096_memory
from training_step import training_step

BENCHMARKS: Mapping[str, Callable[[], dict[str, object]]] = {
    "ada-resampling": ada_resampling,
    "dense-labelling": dense_labelling,
    "feature-rows": feature_rows,
    "generator-forward": generator_forward,
    "tile4096-memory": tile4096_memory,
    "training-step": training_step,
}


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    for name in names:
        print(json.dumps({"benchmark": name, **BENCHMARKS[name]()}), flush=True)


if __name__ == "__main__":
    main()
