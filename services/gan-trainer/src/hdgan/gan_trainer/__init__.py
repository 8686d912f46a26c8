"""The stage that trains a StyleGAN2-ADA on tiles."""
