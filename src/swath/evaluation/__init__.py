"""Evaluation: scores with their protocol, intervals and baselines beside them."""
