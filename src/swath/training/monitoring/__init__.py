"""What watches a run: metrics, progress, collapse, divergence, images."""
