"""Label sets against label sets: what every query shares with every archive item, in sums.

Chance, ideal rankings and the number of relevant items depend on labels alone, not on any ranking: they are
made once and serve every direction of an evaluation. Distinct label sets are compared, of which there are
few, not items.

Legend: Q queries, N archive items, K classes, E exclusions a query, G gain levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError

_CHUNK_CELLS = 8_000_000  # numbers of one intermediate matrix: 64 MB


def as_multi_hot(labels: Any, *, classes: int | None = None, what: str = "items") -> Tensor:
    """Labels as [N, K] float64 of zeros and ones.

    Args:
        labels: [N] class indices, negative where unknown, or [N, K] zeros and ones.
        classes: K, for class indices; by default the largest and one.
        what: What to call the items in a message.

    Raises:
        SwathError: Items without a label, a class index beyond `classes`, values that are neither 0 nor 1.
    """
    given = torch.as_tensor(np.asarray(labels))
    if given.ndim == 1 and not given.is_floating_point():
        unlabeled = given < 0
        count = int(given.max()) + 1 if classes is None and len(given) else (classes or 0)
        if len(given) and int(given.max()) >= count:
            raise SwathError(f"class {int(given.max())} among the {what}, but there are {count} classes only")
        sets = F.one_hot(given.clamp_min(0).to(torch.int64), max(1, count)).double()
    elif given.ndim == 2:
        sets = given.double()
        if not bool(((sets == 0) | (sets == 1)).all()):
            raise SwathError(f"labels of the {what} are zeros and ones [N, K], or class indices [N]")
        unlabeled = sets.sum(dim=1) == 0
    else:
        raise SwathError(
            f"labels of the {what} are class indices [N] or zeros and ones [N, K], not {list(given.shape)} "
            f"of {given.dtype}"
        )
    if bool(unlabeled.any()):
        first = int(unlabeled.nonzero()[0])
        raise SwathError(
            f"{int(unlabeled.sum()):,} of {len(given):,} {what} have no label (first: number {first}): "
            "no share of labels in common can be computed for them. Give them labels, or leave them out."
        )
    return sets


def label_pair(query_labels: Any, archive_labels: Any) -> tuple[Tensor, Tensor]:
    """Both as multi-hot over the same classes."""
    image_sizes = [torch.as_tensor(np.asarray(labels)) for labels in (query_labels, archive_labels)]
    if image_sizes[0].ndim != image_sizes[1].ndim or (
        image_sizes[0].ndim == 2 and image_sizes[0].shape[1] != image_sizes[1].shape[1]
    ):
        raise SwathError(
            f"labels of shape {list(image_sizes[0].shape)} (queries) and {list(image_sizes[1].shape)} "
            "(archive) are not "
            "of one nomenclature; open both with the same classes"
        )
    classes = None
    if image_sizes[0].ndim == 1 and not image_sizes[0].is_floating_point():
        classes = max((int(image_size.max()) + 1 for image_size in image_sizes if len(image_size)), default=1)
    queries, gallery = (
        as_multi_hot(image_size, classes=classes, what=what)
        for image_size, what in zip(image_sizes, ("queries", "archive items"), strict=True)
    )
    return queries, gallery


def exclusions(exclude: Tensor | None, queries: int, gallery: int) -> Tensor:
    """[Q, E] int64, checked; E may be 0."""
    if exclude is None:
        return torch.empty(queries, 0, dtype=torch.int64)
    hidden = exclude.to(torch.int64).reshape(len(exclude), -1)
    if len(hidden) != queries or (hidden.numel() and int(hidden.max()) >= gallery):
        raise SwathError(
            f"exclusions are positions [Q] or [Q, E] below {gallery}, one row for each of {queries}"
        )
    # An item named twice is hidden once.
    hidden = hidden.sort(dim=1).values
    again = torch.zeros_like(hidden, dtype=torch.bool)
    again[:, 1:] = hidden[:, 1:] == hidden[:, :-1]
    return hidden.masked_fill(again, -1)


@dataclass(slots=True)
class LabelOverlap:
    """Sums over all archive items that may answer each query; float64.

    Attributes:
        queries: [Q, K] labels, zeros and ones.
        gallery: [N, K] labels.
        items: [Q] how many archive items may answer.
        relevant: [Q] how many of them share a label.
        gain: [Q] labels shared, summed.
        precision: [Q] sum of |q & r| / |r|.
        pair_f1: [Q] sum of 2 |q & r| / (|q| + |r|).
        levels: [Q, G] how many share g labels.
    """

    queries: Tensor
    gallery: Tensor
    items: Tensor
    relevant: Tensor
    gain: Tensor
    precision: Tensor
    pair_f1: Tensor
    levels: Tensor

    def ideal_gain(self, k: int) -> Tensor:
        """[Q] the largest discounted gain that k answers can have."""
        steps = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
        discount = torch.cat([torch.zeros(1, dtype=torch.float64), steps.cumsum(0)])
        best = self.levels.flip(1).cumsum(dim=1).clamp_max(k).to(torch.int64)  # most shared labels first
        reached = discount[best]
        each = torch.diff(reached, dim=1, prepend=torch.zeros(len(reached), 1, dtype=torch.float64))
        gains = torch.arange(self.levels.shape[1] - 1, -1, -1, dtype=torch.float64)
        return each @ gains


def label_overlap(query_labels: Any, archive_labels: Any, *, exclude: Tensor | None = None) -> LabelOverlap:
    """Every query against every archive item.

    Args:
        query_labels: [Q] class indices or [Q, K] zeros and ones.
        archive_labels: [N] or [N, K].
        exclude: [Q] or [Q, E] positions in the archive that must not answer that query; -1 for none.

    Raises:
        SwathError: Items without labels, or labels of two nomenclatures.
    """
    queries, gallery = label_pair(query_labels, archive_labels)
    hidden = exclusions(exclude, len(queries), len(gallery))
    asked, which = torch.unique(queries, dim=0, return_inverse=True)
    held, counts = torch.unique(gallery, dim=0, return_counts=True)
    number, sizes = counts.double(), held.sum(dim=1)
    parts = []
    depth = int(max(asked.sum(dim=1).max(), 0)) + 1 if len(asked) else 1
    for some in torch.split(asked, max(1, _CHUNK_CELLS // max(1, len(held)))):
        shared = some @ held.T
        own = some.sum(dim=1, keepdim=True)
        columns = [(shared > 0).double() @ number, shared @ number, (shared / sizes) @ number]
        columns.append((2 * shared / (own + sizes)) @ number)
        columns += [(shared == level).double() @ number for level in range(depth)]
        parts.append(torch.stack(columns, dim=1))
    table = torch.cat(parts)[which] if parts else torch.zeros(0, 4 + depth, dtype=torch.float64)
    items = torch.full((len(queries),), float(len(gallery)), dtype=torch.float64)
    for column in hidden.T:
        gone = (column >= 0).double()
        other = gallery[column.clamp_min(0)]
        shared, both = (queries * other).sum(dim=1), (queries + other).sum(dim=1)
        items -= gone
        less = [(shared > 0).double(), shared, shared / other.sum(dim=1), 2 * shared / both]
        table[:, :4] -= torch.stack(less, dim=1) * gone[:, None]
        table[:, 4:].scatter_add_(1, shared.to(torch.int64)[:, None], -gone[:, None])
    return LabelOverlap(
        queries, gallery, items, table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4:]
    )
