"""What a person does with trained networks: images by seed, and a real image's latent."""
