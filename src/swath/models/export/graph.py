"""A model as one function of tensors, for forms that run without Swath: images and GSDs in, answers out.

Normalization is inside: whoever runs the exported form hands over images in the sensor's unit, as he would to
`Model.embed`, and cannot get mean, standard deviation or the meaning of a GSD wrong. What stays outside are
the checks of the contract (units, order of bands): such a form refuses nothing.

Legend: B images, T dates, C bands, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from swath._version import __version__
from swath.encoders.protocol import size_divisor
from swath.encoders.swin import Swin
from swath.errors import ContractError
from swath.models.export.registry import ExportOptions
from swath.models.model import Model
from swath.sensors.sensor import Sensor

TOLERANCE = 1e-4  # of an exported form, relative to the largest number of the answer or to 1


class ExportGraph(nn.Module):
    """``graph(image, gsd) -> answers`` of a model, for one of its sensors.

    Args:
        model: Gives the answers (`Model.answer`).
        sensor: Of the images.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Model, sensor: Sensor) -> None:
        super().__init__()
        self.model = model
        self.sensor = sensor.name
        self.reference_gsd = float(model.contract.reference_gsd)
        scale = 1.0 / torch.tensor(sensor.std, dtype=torch.float64)
        shift = -torch.tensor(sensor.mean, dtype=torch.float64) * scale
        self.register_buffer("scale", scale.to(torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.to(torch.float32).view(-1, 1, 1), persistent=False)
        self.eval()

    def forward(self, image: Tensor, gsd: Tensor) -> Tensor:
        """Answers.

        Args:
            image: [B, C, H, W] float32 in the sensor's unit; of two dates [B, T, C, H, W]. NaN and infinity
                are no data.
            gsd: [B] float32, in the contract's mode.
        """
        normal = image * self.scale + self.shift
        valid = torch.isfinite(normal).all(dim=-3, keepdim=True)
        if normal.ndim == 5:
            valid = valid.all(dim=1, keepdim=True)
        return self.model.infer(torch.where(valid, normal, 0.0), gsd / self.reference_gsd, self.sensor)


@dataclass(frozen=True)
class ExportPlan:
    """What is exported, and what may vary.

    Attributes:
        graph: The function.
        sensor: Of its images.
        step: Sides of images are multiples of it.
        size: The one side of all images in pixels; None: any.
        dates: Images that are looked at together.
        least: Steps that a side has at least.
    """

    graph: ExportGraph
    sensor: Sensor
    step: int
    size: int | None
    dates: int
    min_size: int = 1

    def example(self, batch: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Images of `rows` x `columns` steps as the sensor might see them, one pixel no data; and GSDs."""
        random = torch.Generator().manual_seed(batch + 100 * rows + 1000 * columns)
        height, width = (self.size or count * self.step for count in (rows, columns))
        several = (self.dates,) if self.dates > 1 else ()
        noise = torch.randn(batch, *several, len(self.sensor.bands), height, width, generator=random)
        image = (noise - self.graph.shift) / self.graph.scale
        image[0, ..., 0, 0] = float("nan")
        low, high = self.graph.model.contract.gsd_range or (self.graph.reference_gsd,) * 2
        return image, low + (high - low) * torch.rand(batch, generator=random)

    def shapes(self) -> tuple[dict[int, Any], dict[int, Any]]:
        """The dynamic shapes of image and GSD, as `torch.export` wants them."""
        dim = torch.export.Dim
        batch = dim("batch", min=1, max=65536)
        image: dict[int, Any] = {0: batch}
        if self.size is None:
            last = 4 if self.dates > 1 else 3
            rows, columns = (dim(name, min=self.min_size, max=4096) for name in ("rows", "columns"))
            image |= {last - 1: self.step * rows, last: self.step * columns}
        return image, {0: batch}

    def trials(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs of several shapes that an exported form is checked with."""
        least = self.min_size
        sizes = [(1, 2, 2), (3, 2, 2)] if self.size else [(1, least, least), (3, 2, 4), (2, 5, 3)]
        return [self.example(*size) for size in sizes]

    def facts(self) -> dict[str, Any]:
        """What somebody who holds the exported form alone has to know; JSON-safe."""
        model, sensor = self.graph.model, self.sensor
        contract = model.contract
        return {
            "model": model.id,
            "swath": __version__,
            "encoder": model.config.get("encoder", {}).get("name"),
            "output": model.output,
            "classes": getattr(model, "classes", None),
            "multilabel": getattr(model, "multilabel", None),
            "sensor": sensor.name,
            "bands": list(sensor.band_names),
            "unit": sensor.unit,
            "mean": list(sensor.mean),
            "std": list(sensor.std),
            "normalization": "inside",
            "gsd_mode": contract.gsd_mode,
            "gsd_range": list(contract.gsd_range) if contract.gsd_range else None,
            "reference_gsd": contract.reference_gsd,
            "reference_size": contract.reference_size,
            "size_multiple": self.step,
            "size_least": self.size or self.min_size * self.step,
            "size": self.size,
        }


def plan_export(model: Model, choices: ExportOptions, *, min_size: int = 1) -> ExportPlan:
    """What of a model is exported.

    Args:
        model: Any; it goes to the CPU.
        choices: The user's.
        min_size: Steps (patches, cells of the coarsest map) that the form needs along a side of any size.

    Raises:
        ContractError: A choice is missing or means nothing here, or the model answers with no tensor.
    """
    if choices.gsd is not None:
        raise ContractError("gsd: it is an input of the exported form, one an image; leave it out")
    if model.output not in ("embedding", "probabilities"):
        raise ContractError(
            f"{model.name} answers with {model.output}, which are no single tensor; export its embeddings"
        )
    sensor = model.contract.sensor(choices.sensor)
    step = size_divisor(model.encoder, sensor.name)
    if isinstance(model.encoder, Swin) and choices.size is None:
        raise ContractError(
            "size: how a Swin's windows lie depends on the size of the image, so its exported form is for "
            "one: say their side in pixels (--size). The batch stays free"
        )
    if choices.size is not None and choices.size % step:
        fits = max(step, round(choices.size / step) * step)
        raise ContractError(f"size: {choices.size} pixels are no multiple of {step}; {fits} are")
    return ExportPlan(ExportGraph(model.cpu(), sensor), sensor, step, choices.size, model.dates, min_size)


@torch.no_grad()
def trace_graph(planned: ExportPlan) -> torch.export.ExportedProgram:
    """The graph through `torch.export`.

    Raises:
        ContractError: It cannot be for images of any size.
    """
    example = planned.example(2, 3, 4)
    planned.graph(*example)  # what encoders remember of a size (a Swin its windows) is then of real tensors
    try:
        return torch.export.export(planned.graph, example, dynamic_shapes=planned.shapes())
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = "state one size (--size)" if planned.size is None else "this network cannot be exported"
        raise ContractError(
            f"{planned.graph.model.name}: torch.export cannot follow the network ({reason}): {hint}"
        ) from error


@torch.no_grad()
def compare_with_model(planned: ExportPlan, run: Any, what: str) -> float:
    """Compare an exported form with the model on several shapes; returns the largest relative difference.

    Args:
        planned: What was exported.
        run: ``run(image, gsd) -> Tensor`` of the exported form.
        what: Its name in a message.

    Raises:
        ContractError: They differ by more than `TOLERANCE`, or the form fails.
    """
    worst = 0.0
    for image, gsd in planned.trials():
        wanted = planned.graph(image, gsd)
        try:
            found = cast(Tensor, run(image, gsd))
        except Exception as error:  # of another runtime, of whatever class
            raise ContractError(
                f"{what}: fails on images {list(image.shape)} ({str(error).splitlines()[0]}); nothing was "
                + ("written" if planned.size else "written. Try one size (--size)")
            ) from error
        if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
            raise ContractError(
                f"{what}: answers {list(found.shape)}, not {list(wanted.shape)} finite numbers"
            )
        worst = max(worst, float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max())))
    if worst > TOLERANCE:
        raise ContractError(
            f"{what}: differs from the model by {worst:.1g}, more than {TOLERANCE:g}; not written"
        )
    return worst
