"""Retrieval within and across sensors."""
