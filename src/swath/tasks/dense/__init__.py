"""One class per pixel: segmentation, and what change detection shares with it."""
