"""Retrieval scores equal those of CSMAE's released evaluation on the same features and labels, to 1e-5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from swath.evaluation.measures.retrieval import exact_neighbors, retrieval_scores

DIRECTIONS = [(a, b) for a in ("s1", "s2") for b in ("s1", "s2")]


@pytest.fixture(scope="module")
def reference(parity_dir: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(parity_dir / "retrieval_metrics.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize(("query_sensor", "gallery_sensor"), DIRECTIONS)
def test_neighbors_and_distances(reference: dict[str, Any], query_sensor: str, gallery_sensor: str) -> None:
    found = exact_neighbors(
        reference[f"query_feat_{query_sensor}"],
        reference[f"archive_feat_{gallery_sensor}"],
        int(reference["k"]),
    )
    name = f"{query_sensor}_{gallery_sensor}"
    if reference[f"min_gap_sqdist.{name}"] > 1e-6:  # otherwise rounding may decide who is nearer
        assert torch.equal(found.ids, reference[f"topk_ids.{name}"])
    assert torch.allclose(2 - 2 * found.cosines, reference[f"topk_sqdist.{name}"].double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("query_sensor", "gallery_sensor"), DIRECTIONS)
def test_precision_recall_f1(reference: dict[str, Any], query_sensor: str, gallery_sensor: str) -> None:
    name = f"{query_sensor}_{gallery_sensor}"
    queries, gallery = reference[f"query_feat_{query_sensor}"], reference[f"archive_feat_{gallery_sensor}"]
    labels = reference["query_labels"], reference["archive_labels"]
    scores = retrieval_scores(exact_neighbors(queries, gallery, int(reference["k"])).ids, *labels)
    means = scores.means()
    for ours, theirs in (("precision", "prec"), ("recall", "rec"), ("f1", "f1")):
        assert means[ours] == pytest.approx(float(reference[f"official.{name}.{theirs}"]), abs=1e-5)
    own = torch.stack([scores.precision, scores.recall, scores.pair_f1], dim=1)
    k = int(reference["k"])
    assert torch.allclose(own, reference[f"reimpl.{name}.per_query_prec_rec_f1_k{k}"], rtol=0, atol=1e-5)
    pairs = float(reference[f"reimpl.{name}.f1_mean_of_pairs_k{k}"])
    assert means["pair_f1"] == pytest.approx(pairs, abs=1e-5)
    assert abs(means["pair_f1"] - means["f1"]) > 1e-4  # the two are not the same thing


@pytest.mark.parametrize(("query_sensor", "gallery_sensor"), DIRECTIONS)
def test_other_k(reference: dict[str, Any], query_sensor: str, gallery_sensor: str) -> None:
    prefix = f"reimpl.{query_sensor}_{gallery_sensor}.prec_rec_f1_f1pairs_k"
    depths = [int(name.removeprefix(prefix)) for name in reference if name.startswith(prefix)]
    assert depths
    for k in depths:
        found = exact_neighbors(
            reference[f"query_feat_{query_sensor}"], reference[f"archive_feat_{gallery_sensor}"], k
        )
        means = retrieval_scores(found.ids, reference["query_labels"], reference["archive_labels"]).means()
        own = torch.tensor([means[m] for m in ("precision", "recall", "f1", "pair_f1")], dtype=torch.float64)
        assert torch.allclose(own, reference[f"{prefix}{k}"].double(), rtol=0, atol=1e-5)


def test_no_other_tensor_is_in_the_file(reference: dict[str, Any]) -> None:
    way = r"s[12]_s[12]"
    known = (
        r"(query|archive)_(feat_s[12]|labels)|k|"
        rf"official\.{way}\.(prec|rec|f1)|(topk_ids|topk_sqdist|min_gap_sqdist)\.{way}|"
        rf"reimpl\.{way}\.(f1_mean_of_pairs|per_query_prec_rec_f1|prec_rec_f1_f1pairs)_k\d+"
    )
    assert all(re.fullmatch(known, name) for name in reference)
