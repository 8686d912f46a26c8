"""The object server on 127.0.0.1 as a process: prints its URL, and ends when its input does."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from e2e.object_server import server


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    made = server(Path(sys.argv[1]), "127.0.0.1", 0)
    threading.Thread(target=_end_with_input, daemon=True).start()
    print(f"http://127.0.0.1:{made.server_port}", flush=True)
    made.serve_forever()
