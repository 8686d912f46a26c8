"""Run the classifier stage named by the request in `HDGAN_REQUEST`."""

from hdgan.classifier.stage import CLASSIFIER
from hdgan.core.stage import main

main(CLASSIFIER)
