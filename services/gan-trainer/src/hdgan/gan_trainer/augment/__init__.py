"""Adaptive discriminator augmentation (Karras et al. 2020b): `augment` and the named sets."""

from hdgan.gan_trainer.augment.pipeline import augment
from hdgan.gan_trainer.augment.sets import AUGMENT_SETS, AugmentSet, augment_set

__all__ = ["AUGMENT_SETS", "AugmentSet", "augment", "augment_set"]
