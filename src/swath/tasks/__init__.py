"""Downstream tasks: heads on an encoder's features, their data, losses and measures."""
