"""`swath evaluate`: frozen features of any model, scored with intervals and baselines."""

from swath.cli.evaluate.frozen import app

__all__ = ["app"]
