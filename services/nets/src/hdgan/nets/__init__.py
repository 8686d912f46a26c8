"""StyleGAN2 networks, their feature pyramid and the pixel-classifier ensemble (torch)."""
