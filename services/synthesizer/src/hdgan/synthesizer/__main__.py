"""`python -m` entry of the synthesizer service."""

from hdgan.core.stage import main
from hdgan.synthesizer.stage import CANDIDATES, DATASET

main(CANDIDATES, DATASET)
