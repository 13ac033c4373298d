"""The pixels of one file, read safely."""
