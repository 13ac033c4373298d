"""Pure functions from features, labels and predictions to numbers."""
