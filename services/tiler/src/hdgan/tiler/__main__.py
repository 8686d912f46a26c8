"""`python -m hdgan.tiler`: run the request named by HDGAN_REQUEST."""

from hdgan.core.stage import main
from hdgan.tiler.stage import TILER

main(TILER)
