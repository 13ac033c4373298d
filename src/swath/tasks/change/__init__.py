"""Change detection between two dates."""
