"""What one can fool oneself with: leaks, collapse, scores that hold on clean images only."""
