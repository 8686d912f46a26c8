"""The synthesizer as the process it is, but it sends itself a signal at a place a test names.

`SIGNALLED` is JSON: the signal's name, the function, and which call of it: the signal comes just
before. It saves its work after every draw, so that there is something to take over.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from hdgan.core.stage import main
from hdgan.core.store_file import FileStore
from hdgan.nets.labelling import Labeller
from hdgan.synthesizer import unfinished
from hdgan.synthesizer.stage import CANDIDATES, DATASET

OWNERS: dict[str, type] = {
    "label": Labeller,
    "put": FileStore,
    "put_if_absent": FileStore,
    "delete": FileStore,
}


def arrange(name: str, function: str, call: int) -> None:
    """Send signal `name` before the `call`-th call of a function."""
    owner, left = OWNERS[function], call
    original = getattr(owner, function)

    def signalling(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.Signals[name])
        return original(*args, **kwargs)

    setattr(owner, function, signalling)


if __name__ == "__main__":
    unfinished.SAVE_SECONDS = 0.0
    arrange(*json.loads(os.environ["SIGNALLED"]))
    main(CANDIDATES, DATASET)
