"""Tiles over anything large, and how overlapping predictions are blended."""
