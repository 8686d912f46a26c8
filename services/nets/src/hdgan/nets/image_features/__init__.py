"""Feature vectors of images, for comparing sets of them."""

from hdgan.nets.image_features.extractor import FeatureExtractor, open_extractor

__all__ = ["FeatureExtractor", "open_extractor"]
