"""`swath search`: the chips of an archive that are most similar to a query."""

from swath.cli.search.search import command

__all__ = ["command"]
