"""The thresholds of the alerts as the chart has them by default, for lines and colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

VALUES: Final = Path(__file__).parents[3] / "charts" / "hdgan" / "values.yaml"
THRESHOLDS: Final[dict[str, Any]] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))[
    "monitoring"
]["prometheusRule"]["thresholds"]
