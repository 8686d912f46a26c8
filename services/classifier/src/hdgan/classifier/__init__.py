"""The stage that trains the pixel-classifier ensemble and scores it."""
