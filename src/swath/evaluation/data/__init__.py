"""Labeled images for evaluation: opening, splitting and checking them."""
