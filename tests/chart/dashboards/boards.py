"""All dashboards, as the chart ships them."""

from __future__ import annotations

from typing import Final

from chart.dashboards.board import Board
from chart.dashboards.fleet import FLEET
from chart.dashboards.run import ONE_RUN
from chart.dashboards.storage import STORAGE
from chart.dashboards.training import TRAINING

BOARDS: Final[tuple[Board, ...]] = (FLEET, ONE_RUN, TRAINING, STORAGE)
