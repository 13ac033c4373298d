"""Landscapes in metres, before any sensor sees them."""
