"""Pulling together what belongs together, and apart what does not.

Losses that compare the embeddings of a batch. Under torchrun the negatives of all ranks take part: every
rank gathers all embeddings (`gather_rows`), and the mean over ranks of the losses of its own rows is the
loss of the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swath.cpu.linear import OneDnnLinear
from swath.objectives.losses.precision import full_precision

Held = list[tuple[Tensor, Tensor | None]]  # keys [B, D], and whose they are [B]


class _Gather(torch.autograd.Function):
    """Rows of all ranks; the gradient of a rank's own rows is the sum over the ranks that used them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        first = dist.get_rank() * ctx.count
        return grad[first : first + ctx.count]


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """[B, D] of this rank -> [R B, D] of all R ranks, in their order; differentiable.

    Every rank must have as many rows. Without a process group, the rows as they are.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalized temperature-scaled cross entropy (Chen et al. 2020; CSMAE's mutual information loss).

    Of the 2 R B embeddings of a batch over R ranks, each is asked to find its partner, row i of `first` and
    row i of `second`, among all others by cosine similarity.

    Args:
        first: [B, D] this rank's embeddings, not normalized.
        second: [B, D] their partners.
        temperature: Divides the cosines.

    Returns:
        Scalar mean over this rank's 2 B rows. Its mean over ranks is the loss of the whole batch.
    """
    count = len(first)
    own = F.normalize(full_precision(torch.cat([first, second])), dim=1)
    everyone_first, everyone_second = all_gather_with_grad(own[:count]), all_gather_with_grad(own[count:])
    everyone = torch.cat([everyone_first, everyone_second])
    total = len(everyone_first)
    rank = dist.get_rank() if total > count else 0
    row = torch.arange(count, device=own.device) + rank * count
    itself, partner = torch.cat([row, row + total]), torch.cat([row + total, row])
    similarity = own @ everyone.T / temperature
    similarity = similarity.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(similarity, partner)


def paired_softplus(first: Tensor, second: Tensor) -> Tensor:
    """Minus the mean softplus of paired cosines (CSMAE's mutual discriminability loss, `MDE`).

    Lies between -softplus(1) = -1.313 (all pairs aligned) and -softplus(-1) = -0.313. It has no negatives:
    alone, a constant embedding minimizes it.

    Args:
        first: [B, D].
        second: [B, D] partners.
    """
    return -F.softplus(F.cosine_similarity(full_precision(first), full_precision(second), dim=1)).mean()


def info_nce(
    query: Tensor, key: Tensor, negatives: Tensor, temperature: float, alike: Tensor | None = None
) -> Tensor:
    """Cross entropy of finding a query's own key among negatives (van den Oord 2018, MoCo).

    Args:
        query: [B, D], not normalized.
        key: [B, D], not normalized, without gradient.
        negatives: [K, D] unit vectors.
        temperature: Divides the cosines.
        alike: [B, K] bool, negatives that are none, and left out: earlier keys of the same image.
    """
    query = F.normalize(full_precision(query), dim=1)
    key = F.normalize(full_precision(key.detach()), dim=1)
    own = (query * key).sum(dim=1, keepdim=True)
    others = query @ negatives.T
    if alike is not None:
        others = others.masked_fill(alike, float("-inf"))
    logits = torch.cat([own, others], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


class Projector(nn.Module):
    """Pooled features to the space of the contrast: two linear layers with a ReLU between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = OneDnnLinear(inputs, hidden)
        self.fc2 = OneDnnLinear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        out: Tensor = self.fc2(F.relu(self.fc1(x)))
        return out


class KeyQueue(nn.Module):
    """The last `size` keys of all ranks, each once and of unit length (MoCo, He et al. 2020).

    Args:
        size: K; need not be a multiple of the batch.
        dim: D.

    Attributes:
        keys: [K, D]. Random directions until they are replaced.
        owners: [K] position in the data set of the image of each key; -1 where unknown. A queue that is
            longer than the data holds several keys of one image, which must not count as different.
        place: Where the next key goes.
    """

    keys: Tensor
    owners: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("owners", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._held: Held = []

    def held_by(self, owners: Tensor | None) -> Tensor | None:
        """[B, K] bool: which keys are of the images [B]; None where it is not known which those are."""
        return None if owners is None else owners.to(self.owners)[:, None] == self.owners

    def hold(self, keys: Held) -> None:
        """Keep keys of a step in training until `push_held`: its backward pass needs the queue as it was.

        Args:
            keys: Each as for `push`; they replace those that were held.
        """
        if self.training:
            self._held = keys

    def push_held(self) -> None:
        """Push what is held, in its order; nothing where nothing is."""
        for keys, owners in self._held:
            self.push(keys, owners)
        self._held = []

    @torch.no_grad()
    def push(self, keys: Tensor, owners: Tensor | None = None) -> None:
        """Replace the oldest keys by [B, D] new ones of this rank and those of all others.

        Args:
            keys: In the order of the batch.
            owners: [B] int64 position of each key's image in the data set.
        """
        if owners is None:
            owners = torch.full((len(keys),), -1)
        keys = F.normalize(all_gather_with_grad(full_precision(keys.detach())), dim=1)[-len(self.keys) :]
        owners = all_gather_with_grad(owners.to(self.owners))[-len(self.keys) :]
        at = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[at] = keys
        self.owners[at] = owners
        self.place.copy_((self.place + len(keys)) % len(self.keys))
