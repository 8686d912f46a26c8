"""`python -m` entry of the synthesizer service."""

import hdgan.core.held_signals  # noqa: F401 (first: until the stage can hear them)
from hdgan.core.stage import main
from hdgan.synthesizer.stage import CANDIDATES, DATASET, RANKINGS

main(CANDIDATES, *RANKINGS, DATASET)
