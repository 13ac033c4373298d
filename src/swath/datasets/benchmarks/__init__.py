"""Published labeled data sets, known by name."""
