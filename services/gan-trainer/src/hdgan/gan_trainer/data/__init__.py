"""Training tiles: which they are, in which order, and how they get here from the store."""

from hdgan.gan_trainer.data.split import TileSplit, split_tiles, stain_labels, tile_labels
from hdgan.gan_trainer.data.stream import TileStream

__all__ = ["TileSplit", "TileStream", "split_tiles", "stain_labels", "tile_labels"]
