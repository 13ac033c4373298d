"""`swath archive`: what an archive holds, its upkeep, and its exchange with other programs."""

from swath.cli.archive.commands import app

__all__ = ["app"]
