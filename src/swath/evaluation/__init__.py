"""Evaluation: scores with their protocol, intervals and baselines beside them.

`features` makes vectors of labeled images, `protocols` turns them into scores, `report` into something to
read; `baselines` are what a score is worth comparing with, `splits` decides who is bank and who is query.
"""
