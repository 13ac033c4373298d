"""Labelled images: opened by whatever name, checked, and divided into bank and queries."""
