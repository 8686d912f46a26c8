"""Reads other people's network files without running anything that is in them."""
