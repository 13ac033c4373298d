"""Weights published by others, as model directories."""
