"""Run the extractor stage named by the request in `HDGAN_REQUEST`."""

import hdgan.core.held_signals  # noqa: F401 (first: until the stage can hear them)
from hdgan.core.stage import main
from hdgan.extractor.stage import EXTRACTOR

main(EXTRACTOR)
