"""Recipes: typed sections, overrides, errors with paths."""
