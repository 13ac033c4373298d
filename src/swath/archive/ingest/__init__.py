"""Ingest: how imagery becomes rows of an archive, and only what is new or has changed."""
