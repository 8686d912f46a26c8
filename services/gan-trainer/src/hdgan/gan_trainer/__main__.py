"""`python -m` entry of the gan-trainer service."""

import hdgan.core.held_signals  # noqa: F401 (first: until the stage can hear them)
from hdgan.core.stage import main
from hdgan.gan_trainer.drift import DRIFT
from hdgan.gan_trainer.stage import GAN_TRAINER

main(GAN_TRAINER, DRIFT)
