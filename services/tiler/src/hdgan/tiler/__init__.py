"""The tiler: whole-slide images in, honest tiles at one scale out."""
