"""Run the extractor stage named by the request in `HDGAN_REQUEST`."""

from hdgan.core.stage import main
from hdgan.extractor.stage import EXTRACTOR

main(EXTRACTOR)
