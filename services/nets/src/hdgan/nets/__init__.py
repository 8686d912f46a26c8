"""The networks: StyleGAN2, its feature pyramid and the pixel-classifier ensemble."""
