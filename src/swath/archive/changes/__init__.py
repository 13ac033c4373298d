"""What changed between two dates: change scores of an archive and their heatmap."""
