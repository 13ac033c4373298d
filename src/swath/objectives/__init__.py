"""Objectives: one pretraining method a file, beside the parts that they share."""
