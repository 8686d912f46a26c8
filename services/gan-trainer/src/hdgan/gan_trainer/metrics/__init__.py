"""How good and how new generated images are, measured on feature vectors."""
