"""`python -m hdgan.desk`: run the request named by HDGAN_REQUEST."""

import hdgan.core.held_signals  # noqa: F401 (first: until the stage can hear them)
from hdgan.core.stage import main
from hdgan.desk.stage import REPORT

main(REPORT)
