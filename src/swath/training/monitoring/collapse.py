"""Looking for collapse: is the embedding still spread out, or does everything become one point or one line?

Both measures are taken on a fixed batch of training images, without augmentation, so that they can be
compared along a run. They are no scores: a higher value is not a better model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.encoders.protocol import size_divisor
from swath.training.monitoring.metrics_log import Row


def feature_std(features: Tensor) -> float:
    """Spread of directions: mean standard deviation of the unit-length features, times sqrt(D).

    1 for directions spread evenly, 0 when all features point the same way (Chen and He 2021, section 4.1).

    Args:
        features: [N, D].
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    return float(unit.std(dim=0, unbiased=False).mean() * features.shape[1] ** 0.5)


def rankme(features: Tensor) -> float:
    """Effective rank, between 1 and min(N, D): exp of the entropy of the singular values' shares.

    RankMe of Garrido et al. 2023 (arXiv 2210.02885), equation 1. The paper wants N of ten thousands for a
    value that compares models; with a few hundred it only tells how one run develops.

    Args:
        features: [N, D].
    """
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


@torch.no_grad()
def embed_monitor_batch(encoder: nn.Module, batch: Batch, chunk: int = 32) -> Tensor:
    """Pooled features [N, D] of one sensor's normalized batch; images are cut to a multiple of the stride."""
    stride = size_divisor(encoder, batch["sensor"])
    height, width = (side - side % stride for side in batch["image"].shape[2:])
    image, gsd = batch["image"][:, :, :height, :width], batch["gsd"]
    was_training = encoder.training
    encoder.eval()
    try:
        pooled = [
            encoder(image[i : i + chunk], gsd[i : i + chunk], batch["sensor"]).pooled.float()
            for i in range(0, len(image), chunk)
        ]
    finally:
        encoder.train(was_training)
    return torch.cat(pooled).cpu()


def collapse_warning(rows: Sequence[Row], loss: str = "loss/total") -> str | None:
    """A warning if the newest look shows features that shrink while the loss falls.

    Args:
        rows: Metrics in order; those with ``rankme`` and ``feature_std`` are the looks.
        loss: Key of the loss; a look is paired with the mean of the (up to ten) losses before it.

    Returns:
        The warning when a measure has come below half of its best so far while the loss is lower than then;
        once for each halving. Otherwise None.
    """
    looks: list[tuple[Row, float | None]] = []
    recent: list[float] = []
    for row in rows:
        value = row.get(loss)
        if value is not None:
            recent = [*recent, value][-10:]
        if row.get("rankme") is not None:
            looks.append((row, sum(recent) / len(recent) if recent else None))
    if len(looks) < 3:
        return None
    now, loss_now = looks[-1]
    for key, what in (("rankme", "RankMe"), ("feature_std", "feature std")):
        # The first look is at random weights, whose spread says nothing about training.
        before = [(row[key], value) for row, value in looks[1:-1] if row.get(key) is not None]
        best, loss_best = max(before, key=lambda pair: pair[0] or 0.0)
        value = now[key]
        if best is None or value is None or loss_now is None or loss_best is None:
            continue
        halvings = _halvings(best, value)
        lowest = min(previous or 0.0 for previous, _ in before)
        if halvings >= 1 and halvings > _halvings(best, lowest) and loss_now < loss_best:
            return (
                f"{what} fell from {best:.3g} to {value:.3g} while the loss fell from {loss_best:.4g} to "
                f"{loss_now:.4g}: the embedding may be collapsing. Lower the learning rate or raise the "
                "weight of what spreads features; compare kNN accuracy of this and an earlier checkpoint."
            )
    return None


def _halvings(best: float, value: float) -> int:
    count = 0
    while value < best / 2 and count < 60:
        best, count = best / 2, count + 1
    return count
