"""Embedding runs: from imagery to rows of an archive."""
