"""What holds for every test."""

from __future__ import annotations

import os

# The tensors of unit tests are tiny: threads would wait for each other longer than they work,
# for minutes on a busy machine. Before anything imports torch or numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
