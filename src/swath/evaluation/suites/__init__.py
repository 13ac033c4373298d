"""Suites: several labeled sets, scored by the same protocols; as YAML files, ready ones beside this module.

    name: mine
    scales: [25, 50, 100]              # percent of each set's side
    protocols: {knn: {k: 20}, linear: {}}
    baselines: [statistics, rcf, random]
    datasets:
      - eurosat                        # a set known by name
      - {data: scenes/index.csv, title: Scenes, split_column: split}
    models: [runs/first/model]         # more may be named when the suite is run

`swath.evaluation.suites.run` runs them.
"""

from __future__ import annotations

from swath.evaluation.suites.config import (
    PublishedScores,
    Suite,
    SuiteDataset,
    SuiteModel,
    get_suite,
    list_suites,
)

__all__ = ["PublishedScores", "Suite", "SuiteDataset", "SuiteModel", "get_suite", "list_suites"]
