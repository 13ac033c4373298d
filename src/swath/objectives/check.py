"""`check_objective`: everything that a pretraining objective promises, run against yours::

from swath.objectives.check import check_objective, example_batch

def test_my_objective():
    check_objective(lambda: MyObjective(encoder, config), example_batch(bands=4, size=64))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.datasets.collation import map_tensors, split_by_sensor
from swath.keyed_random import sample_keys
from swath.objectives.protocol import Objective


def example_batch(bands: int = 3, size: int = 64, count: int = 4, sensor: str | None = None) -> Batch:
    """A normalized batch of smooth random images, all valid, with GSDs from 0.3 to 10."""
    generator = torch.Generator().manual_seed(size)
    coarse = torch.randn(count, bands, 8, 8, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    image = image + 0.3 * torch.randn(image.shape, generator=generator)
    index = torch.arange(count)
    batch: dict[str, Any] = {
        "image": image,
        "gsd": torch.logspace(-0.5, 1, count),
        "valid": torch.ones(count, size, size, dtype=torch.bool),
        "key": sample_keys(0, 0, index),
        "index": index,
    }
    if sensor is not None:
        batch["sensor"] = sensor
    return cast(Batch, batch)


def check_objective(
    build: Callable[[], nn.Module],
    batch: Batch,
    *,
    ranks_average: bool = True,
    fixed_target: bool = True,
    tolerance: float = 2e-5,
) -> None:
    """Run every check of the protocol on a tiny instance.

    Args:
        build: Makes the objective; called several times.
        batch: A normalized batch of at least four samples that fits it, all valid.
        ranks_average: Check that the loss of a batch is the mean of the losses of its halves. Methods that
            compare samples with each other (contrast) set it False.
        fixed_target: Check that steps on one batch lower the loss. Methods whose targets move while they
            learn (a teacher's center, a queue that fills with the very same images) set it False.
        tolerance: Largest relative difference where results must be equal up to rounding.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    objective = build()
    assert isinstance(objective, Objective), "it lacks views, after_step, pictures or encoder"
    _check_views(objective, batch)
    _check_losses(objective, batch)
    if ranks_average:
        _check_mean_over_samples(objective, batch, tolerance)
    _check_gradients(build(), batch)
    if fixed_target:
        _check_learning(build(), batch)
    _check_nodata(objective, batch, tolerance)
    _check_pictures(objective, batch)


def example_paired_batch(
    bands: Mapping[str, int], size: int | Mapping[str, int] = 64, count: int = 4
) -> Batch:
    """A normalized paired batch: one smooth random field a place, which every sensor sees with other weights.

    Args:
        bands: Sensor name -> number of bands.
        size: Side in pixels, of all or by sensor; the footprint is the same, so the GSD follows from it.
        count: Places.
    """
    generator = torch.Generator().manual_seed(sum(bands.values()))
    ground = torch.randn(count, 4, 8, 8, generator=generator)
    index = torch.arange(count)
    key = sample_keys(0, 0, index)
    sensors: dict[str, Any] = {}
    for name, number in bands.items():
        side = size if isinstance(size, int) else size[name]
        mix = torch.randn(number, 4, generator=generator) / 2
        image = torch.nn.functional.interpolate(ground, size=(side, side), mode="bilinear")
        image = torch.einsum("cg,bghw->bchw", mix, image)
        sensors[name] = {
            "image": image + 0.3 * torch.randn(image.shape, generator=generator),
            "gsd": torch.full((count,), 64 / side),
            "valid": torch.ones(count, side, side, dtype=torch.bool),
            "sensor": name,
            "key": key,
            "index": index,
        }
    return cast(Batch, {"sensors": sensors, "key": key, "index": index})


def _subset(batch: Batch, which: slice) -> Batch:
    return map_tensors(batch, lambda x: x[which])


def _with_keys(batch: Batch, key: Tensor) -> Batch:
    changed = {**batch, "key": key}
    if "sensors" in batch:
        changed["sensors"] = {name: {**one, "key": key} for name, one in batch["sensors"].items()}
    return cast(Batch, changed)


def _with_holes(batch: Batch) -> Batch:
    """The first image without its upper third, the second without anything."""
    valid = batch["valid"].clone()
    valid[0, : valid.shape[-1] // 3] = False
    valid[1] = False
    return cast(Batch, {**batch, "image": batch["image"] * valid[:, None], "valid": valid})


def _total(objective: Any, batch: Batch) -> Tensor:
    total: Tensor = objective(objective.views(batch))["total"]
    return total


def _tensors(views: Any) -> dict[str, Tensor]:
    """Of views, also those that are one a sensor, by their path."""
    found: dict[str, Tensor] = {}
    for name, value in views.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, Mapping):
            found |= {f"{name}/{key}": inner for key, inner in _tensors(value).items()}
    return found


def _check_views(objective: Any, batch: Batch) -> None:
    state = torch.get_rng_state()
    before = {name: one["image"].clone() for name, one in split_by_sensor(batch).items()}
    first, again = _tensors(objective.views(batch)), _tensors(objective.views(batch))
    assert torch.equal(torch.get_rng_state(), state), "views draws from the global random generator"
    for name, one in split_by_sensor(batch).items():
        assert torch.equal(one["image"], before[name]), "views changes the batch in place"
    for name, value in first.items():
        assert torch.equal(value, again[name]), f"view {name!r} differs when made again from the same keys"
    alone = _tensors(objective.views(_subset(batch, slice(1, 2))))
    for name, value in first.items():
        assert torch.equal(value[1:2], alone[name]), f"view {name!r} depends on what else is in the batch"
    other = _with_keys(batch, batch["key"] + 1)
    changed = _tensors(objective.views(other))
    assert any(not torch.equal(v, changed[k]) for k, v in first.items()), "views ignores the samples' keys"


def _check_losses(objective: Any, batch: Batch) -> None:
    state = torch.get_rng_state()
    losses = objective(objective.views(batch))
    assert torch.equal(torch.get_rng_state(), state), "the loss draws from the global random generator"
    assert "total" in losses, "the losses have no 'total'"
    for name, value in losses.items():
        assert value.shape == (), f"loss {name!r} is not a scalar"
        assert value.isfinite(), f"loss {name!r} is not finite"
    assert losses["total"].requires_grad, "the total cannot be differentiated"
    assert not any(v.requires_grad for k, v in losses.items() if k != "total"), (
        "only the total is differentiated; detach the parts, which are for reading"
    )


def _check_mean_over_samples(objective: Any, batch: Batch, tolerance: float) -> None:
    half = len(batch["key"]) // 2
    whole = _total(objective, _subset(batch, slice(0, 2 * half)))
    parts = [_total(objective, _subset(batch, slice(i * half, (i + 1) * half))) for i in range(2)]
    difference = (whole - (parts[0] + parts[1]) / 2).abs() / whole.abs()
    assert difference <= tolerance, "the loss is not the mean of its halves' losses, so ranks cannot average"


def _check_gradients(objective: Any, batch: Batch) -> None:
    _total(objective, batch).backward()  # type: ignore[no-untyped-call]
    trained = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    without = [name for name, p in trained if p.grad is None]
    assert not without, f"parameters that the loss does not depend on: {', '.join(without)}"
    broken = [name for name, p in trained if p.grad is not None and not p.grad.isfinite().all()]
    assert not broken, f"gradients that are not finite: {', '.join(broken)}"


def _check_learning(objective: Any, batch: Batch, steps: int = 12) -> None:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    history = []
    for step in range(steps):
        loss = _total(objective, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        objective.after_step(step, steps)
        history.append(loss.item())
    assert history[-1] < history[0], f"{steps} steps on one batch do not lower the loss: {history}"


def _check_nodata(objective: Any, batch: Batch, tolerance: float) -> None:
    """Nodata gives finite losses, and what stands in the target's nodata pixels is no matter."""
    if "sensors" in batch:
        pair = {name: _with_holes(one) for name, one in batch["sensors"].items()}
        views = objective.views(cast(Batch, {**batch, "sensors": pair}))
    else:
        views = objective.views(_with_holes(batch))
    assert objective(views)["total"].isfinite(), "nodata pixels make the loss non-finite"
    junk = dict(views)
    if "target" in views and isinstance(views.get("valid"), Tensor):
        hole = ~views["valid"][:, None].expand_as(views["target"])
        junk["target"] = torch.where(hole, 1e3, views["target"])
        with torch.no_grad():
            clean, dirty = objective(views)["total"], objective(junk)["total"]
        assert (clean - dirty).abs() <= tolerance * clean.abs(), "nodata pixels of the target enter the loss"


def _check_pictures(objective: Any, batch: Batch) -> None:
    pictures = objective.images(objective.views(batch))
    for name, value in pictures.items():
        assert value.ndim == 4, f"picture {name!r} is {tuple(value.shape)}, not [B, C, h, w]"
        assert len(value) == len(batch["key"]), f"picture {name!r} is not of every sample"
        assert value.isfinite().all(), f"picture {name!r} has values that are not finite"
        assert not value.requires_grad, f"picture {name!r} holds on to the graph"
