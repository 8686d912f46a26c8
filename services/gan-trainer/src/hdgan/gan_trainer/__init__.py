"""The gan-trainer service: StyleGAN2-ADA on unlabelled tiles."""
