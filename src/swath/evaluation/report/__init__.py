"""Scores as tables, plots and one HTML report."""
