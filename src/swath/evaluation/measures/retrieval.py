"""Scores of retrieval by example, for items with one label or several: pure functions of tensors.

For a query with labels q and its k answers with labels r_1 .. r_k (sets; one label is a set of one):

- **P, R, F1 at k, as CSMAE's released evaluation computes them**: p_j = |q & r_j| / |r_j| and
  c_j = |q & r_j| / |q| are averaged over the k answers and then over the queries to P and R, and
  F1 = 2 P R / (P + R), *the harmonic mean of the two averages*. It says how alike the labels of query and
  answers are. It is **not** the F1@k of information retrieval, whose recall counts the share of all relevant
  items that were found, nor the mean of the pairs' F1 (`pair_f1` here, another number).
- **precision@k**: share of the answers that have at least one label in common with the query.
- **mAP@k**: an answer is relevant if it shares at least one label; AP@k is the sum over relevant ranks
  j <= k of precision@j, divided by min(k, relevant items in the archive).
- **NDCG@k**: the gain of an answer is the *number* of labels that it shares (linear, not 2^n - 1), discounted
  by log2(rank + 1), divided by the best that the archive allows.

A query with no relevant item in the archive scores 0 in the last three, whatever was found. Items without
labels are refused (the released evaluation gives NaN).

Legend: Q queries, N archive items, K classes, D feature dimensions, E exclusions a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.measures.label_overlap import LabelOverlap, exclusions, label_overlap, label_pair

# Field of `RetrievalScores` -> what to call its mean, in the order of tables. "f1" is no field: it is made of
# two means.
METRICS: Mapping[str, str] = {
    "f1": "F1",
    "precision": "P",
    "recall": "R",
    "pair_f1": "pair F1",
    "average_precision": "mAP",
    "ndcg": "NDCG",
    "hits": "precision",
}
F1_LABEL = (
    "F1: harmonic mean of label precision and label recall, each averaged over answers and queries (as "
    "CSMAE's released evaluation); not the F1@k of information retrieval"
)

_CHUNK_CELLS = 8_000_000  # numbers of one intermediate matrix: 64 MB
_TIE = 2.0**40  # cosines that agree to 1e-12 are equal: less than rounding of float32 features can tell


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The k nearest archive items of each query.

    Attributes:
        ids: [Q, k] int64, positions in the archive, nearest first.
        cosines: [Q, k] float64.
    """

    ids: Tensor
    cosines: Tensor


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Scores of each query; what they mean is said at the top of this module.

    Attributes:
        k: Answers that were checked.
        precision: [Q] float64, mean of p_j over the answers (label precision).
        recall: [Q] mean of c_j over the answers (label recall).
        pair_f1: [Q] mean of the F1 of query and answer.
        average_precision: [Q] AP@k.
        ndcg: [Q] NDCG@k.
        hits: [Q] precision@k: share of answers that share at least one label.
        without_relevant: Queries that share no label with any archive item.
    """

    k: int
    precision: Tensor = field(repr=False)
    recall: Tensor = field(repr=False)
    pair_f1: Tensor = field(repr=False)
    average_precision: Tensor = field(repr=False)
    ndcg: Tensor = field(repr=False)
    hits: Tensor = field(repr=False)
    without_relevant: int = 0

    def means(self) -> dict[str, float]:
        """Every metric of `METRICS`, averaged over the queries; ``f1`` of the averages."""
        values = {name: float(getattr(self, name).mean()) for name in METRICS if name != "f1"}
        return {"f1": harmonic_mean(values["precision"], values["recall"]), **values}

    def intervals(
        self,
        units: Sequence[Any] | NDArray[Any] | None = None,
        *,
        level: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap interval of each mean, over queries; ``f1`` of each resample's averages.

        Args:
            units: [Q] groups of queries (scenes) that are drawn whole, because queries of one scene are no
                independent evidence; by default every query by itself.
            level: Coverage.
            resamples: Bootstrap samples.
            seed: Of the resampling.
        """
        drawn = self._resampled(units, resamples, seed)
        tail = (1 - level) / 2
        return {
            name: (float(low), float(high))
            for name, (low, high) in (
                (name, np.quantile(values, [tail, 1 - tail])) for name, values in drawn.items()
            )
        }

    def difference(
        self,
        other: RetrievalScores,
        units: Sequence[Any] | NDArray[Any] | None = None,
        *,
        level: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
    ) -> dict[str, tuple[float, float, float]]:
        """Each metric here less there, with its paired bootstrap interval.

        Both must be of the *same* queries in the same order. Arguments as for `intervals`.
        """
        if len(self.precision) != len(other.precision):
            raise SwathError(f"{len(self.precision)} queries cannot be paired with {len(other.precision)}")
        mine, theirs = self._resampled(units, resamples, seed), other._resampled(units, resamples, seed)
        here, there, tail = self.means(), other.means(), (1 - level) / 2
        found = {}
        for name in METRICS:
            low, high = np.quantile(mine[name] - theirs[name], [tail, 1 - tail])
            found[name] = (here[name] - there[name], float(low), float(high))
        return found

    def select(self, rows: ArrayLike) -> RetrievalScores:
        """The scores of some queries."""
        chosen = torch.as_tensor(np.asarray(rows))
        parts = {
            f.name: getattr(self, f.name)[chosen]
            for f in fields(self)
            if f.name not in ("k", "without_relevant")
        }
        return RetrievalScores(
            k=self.k,
            **parts,
            without_relevant=int((parts["ndcg"] == 0).sum()) if self.without_relevant else 0,
        )

    def _resampled(self, units: Any, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
        """Metric -> [resamples] means of bootstrap samples."""
        names = [name for name in METRICS if name != "f1"]
        values = torch.stack([getattr(self, name) for name in names], dim=1).numpy()
        if not len(values):
            raise SwathError("the interval of no queries at all is not defined")
        sizes = np.ones(len(values))
        if units is not None:
            _, which = np.unique(np.asarray(units), return_inverse=True)
            if len(which) != len(values):
                raise SwathError(f"{len(which)} groups for {len(values)} queries; give one a query")
            sizes = np.bincount(which).astype(np.float64)
            values = np.stack([np.bincount(which, weights=column) for column in values.T], axis=1)
        generator, count = np.random.default_rng(seed), len(values)
        table = np.concatenate([values, sizes[:, None]], axis=1)
        sums = np.stack(
            [
                np.bincount(generator.integers(0, count, count), minlength=count) @ table
                for _ in range(resamples)
            ]
        )
        means = sums[:, :-1] / sums[:, -1:]
        found = {name: means[:, i] for i, name in enumerate(names)}
        total = found["precision"] + found["recall"]
        found["f1"] = np.divide(
            2 * found["precision"] * found["recall"], total, out=np.zeros_like(total), where=total > 0
        )
        return found


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of the queries that carry one class.

    Attributes:
        name: The class.
        queries: Queries that carry it.
        gallery: Archive items that carry it.
        precision: Mean label precision of these queries (0 to 1; NaN where there are none, as the next two).
        recall: Mean label recall.
        f1: Harmonic mean of both.
        class_precision: Fraction of these queries' results that carry the class itself.
        chance: The same of a random ranking: the class's share of the archive.
    """

    name: str
    queries: int
    gallery: int
    precision: float
    recall: float
    f1: float
    class_precision: float
    chance: float


def harmonic_mean(first: float, second: float) -> float:
    """2 a b / (a + b); 0 where both are 0."""
    return 2 * first * second / (first + second) if first + second > 0 else 0.0


def exact_neighbors(
    queries: Tensor, gallery: Tensor, k: int, *, exclude: Tensor | None = None, chunk: int | None = None
) -> Neighbors:
    """The k archive items of largest cosine, by comparing all, in double precision.

    Equal cosines (to 1e-12) come in the order of the archive. A zero vector has cosine 0 to everything.

    Args:
        queries: [Q, D] features, of any length.
        gallery: [N, D] features.
        k: Answers a query.
        exclude: [Q] or [Q, E] positions in the archive that must not answer that query, such as its own;
            -1 for none.
        chunk: Queries at a time; the result does not depend on it.

    Raises:
        SwathError: Fewer than k items left, dimensions that differ, or features that are not finite.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise SwathError(
            f"features of shape {list(queries.shape)} cannot be compared with {list(gallery.shape)}: [Q, D] "
            "and [N, D] with one D are wanted"
        )
    for features in (queries, gallery):
        if not bool(torch.isfinite(features).all()):
            raise SwathError("features hold NaN or infinity: nothing can be said about their neighbors")
    hidden = exclusions(exclude, len(queries), len(gallery))
    left = len(gallery) - (int((hidden >= 0).sum(dim=1).max()) if hidden.numel() else 0)
    if not 0 < k <= left:
        without = f" ({len(gallery) - left} of them excluded)" if left < len(gallery) else ""
        raise SwathError(
            f"k = {k} answers cannot be had of an archive of {len(gallery)} items{without}; choose another k"
        )
    units = F.normalize(gallery.double(), dim=1)
    size = chunk or max(1, _CHUNK_CELLS // max(1, len(gallery)))
    ids, cosines = [], []
    for part, hide in zip(torch.split(queries, size), torch.split(hidden, size), strict=True):
        found = F.normalize(part.double(), dim=1) @ units.T
        found.mul_(_TIE).round_().div_(_TIE)
        if hide.shape[1]:
            mask = torch.zeros(len(part), len(gallery) + 1, dtype=torch.bool)
            mask.scatter_(1, torch.where(hide >= 0, hide, len(gallery)), True)
            found.masked_fill_(mask[:, :-1], -torch.inf)
        values, positions = _largest(found, k)
        ids.append(positions)
        cosines.append(values.clamp(-1, 1))
    if not ids:
        return Neighbors(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k, dtype=torch.float64))
    return Neighbors(torch.cat(ids), torch.cat(cosines))


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns; of equal ones the lower column first."""
    top, columns = values.topk(k, dim=1)
    order = columns.argsort(dim=1)
    top, columns = top.gather(1, order), columns.gather(1, order)
    order = top.argsort(dim=1, descending=True, stable=True)
    top, columns = top.gather(1, order), columns.gather(1, order)
    # topk may take any of several equal values at its edge; such rows are rare, and are sorted whole.
    crowded = ((values >= top[:, -1:]).sum(dim=1) > k).nonzero()[:, 0]
    for rows in torch.split(crowded, 64):
        whole, order = values[rows].sort(dim=1, descending=True, stable=True)
        top[rows], columns[rows] = whole[:, :k], order[:, :k]
    return top, columns


def retrieval_scores(
    neighbors: Tensor,
    query_labels: Any,
    archive_labels: Any,
    *,
    exclude: Tensor | None = None,
    overlap: LabelOverlap | None = None,
) -> RetrievalScores:
    """Score answers by the labels that they share with their query; definitions at the top of the module.

    Args:
        neighbors: [Q, k] positions in the archive, best first (`Neighbors.ids`).
        query_labels: [Q] class indices or [Q, K] zeros and ones.
        archive_labels: [N] or [N, K].
        exclude: As given to `exact_neighbors`: such items count neither as relevant nor as an ideal answer.
        overlap: `label_overlap` of the same labels and exclusions, where it has been made already.

    Raises:
        SwathError: Items without labels, or labels of two nomenclatures.
    """
    k = neighbors.shape[1]
    table = overlap or label_overlap(query_labels, archive_labels, exclude=exclude)
    queries, gallery = table.queries, table.gallery
    shared = torch.cat(
        [
            torch.einsum("qc,qkc->qk", part, gallery[ids])
            for part, ids in zip(torch.split(queries, 4096), torch.split(neighbors, 4096), strict=True)
        ]
    )  # fmt: skip
    requested, have = queries.sum(dim=1, keepdim=True), gallery.sum(dim=1)[neighbors]
    relevant = (shared > 0).double()
    rank = torch.arange(1, k + 1, dtype=torch.float64)
    ap = (relevant * relevant.cumsum(dim=1) / rank).sum(dim=1) / table.relevant.clamp(1, k)
    ideal = table.ideal_gain(k)
    gain = (shared / (rank + 1).log2()).sum(dim=1)
    return RetrievalScores(
        k=k,
        precision=(shared / have).mean(dim=1),
        recall=(shared / requested).mean(dim=1),
        pair_f1=(2 * shared / (have + requested)).mean(dim=1),
        average_precision=ap,
        ndcg=torch.where(ideal > 0, gain / ideal.clamp_min(1e-30), 0.0),
        hits=relevant.mean(dim=1),
        without_relevant=int((table.relevant == 0).sum()),
    )


def chance_scores(
    query_labels: Any,
    archive_labels: Any,
    k: int,
    *,
    exclude: Tensor | None = None,
    overlap: LabelOverlap | None = None,
) -> RetrievalScores:
    """What a ranking in random order is expected to score, query by query: computed exactly, not drawn.

    Arguments and errors as for `retrieval_scores`. (``f1`` is that of the expected averages.)
    """
    table = overlap or label_overlap(query_labels, archive_labels, exclude=exclude)
    queries = table.queries
    n, r = table.items, table.relevant
    rank = torch.arange(1, k + 1, dtype=torch.float64)
    # E[relevant_j * precision@j] of a permutation: the answer itself, and the j - 1 before it.
    both = r * (r - 1) / (n * (n - 1)).clamp_min(1)
    ap = (((r / n)[:, None] + (rank - 1) * both[:, None]) / rank).sum(dim=1) / r.clamp(1, k)
    ideal = table.ideal_gain(k)
    gain = table.gain / n * (1 / (rank + 1).log2()).sum()
    return RetrievalScores(
        k=k,
        precision=table.precision / n,
        recall=table.gain / n / queries.sum(dim=1),
        pair_f1=table.pair_f1 / n,
        average_precision=ap,
        ndcg=torch.where(ideal > 0, gain / ideal.clamp_min(1e-30), 0.0),
        hits=r / n,
        without_relevant=int((r == 0).sum()),
    )


def per_class_retrieval(
    neighbors: Tensor,
    scores: RetrievalScores,
    query_labels: Any,
    archive_labels: Any,
    names: Sequence[str] | None = None,
) -> list[ClassScore]:
    """One row a class: the queries that carry it.

    Args:
        neighbors: [Q, k].
        scores: Of these neighbors.
        query_labels: [Q] or [Q, K].
        archive_labels: [N] or [N, K].
        names: K names; numbers by default.
    """
    queries, gallery = label_pair(query_labels, archive_labels)
    rows = []
    for number in range(queries.shape[1]):
        carry = queries[:, number] > 0
        count, held = int(carry.sum()), int(gallery[:, number].sum())
        nan = float("nan")
        precision, recall, class_precision = (
            (float(values[carry].mean()) if count else nan)
            for values in (scores.precision, scores.recall, gallery[neighbors, number].mean(dim=1))
        )
        rows.append(
            ClassScore(
                name=names[number] if names else str(number),
                queries=count,
                gallery=held,
                precision=precision,
                recall=recall,
                f1=harmonic_mean(precision, recall) if count else nan,
                class_precision=class_precision,
                chance=held / len(gallery),
            )
        )
    return rows
