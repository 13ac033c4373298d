"""Features of images: extraction, caching, and baselines."""
