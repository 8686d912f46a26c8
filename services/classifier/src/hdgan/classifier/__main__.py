"""Run the classifier stage named by the request in `HDGAN_REQUEST`."""

import hdgan.core.held_signals  # noqa: F401 (first: until the stage can hear them)
from hdgan.classifier.stage import CLASSIFIER
from hdgan.core.stage import main

main(CLASSIFIER)
