"""A model as a ``torch.export`` program (``.pt2``): torch alone runs it, with normalization inside.

Batch and, but for Swin, image size are free, from two patches a side on. The file is loaded again before it
takes its name, and must answer as the model does. ``swath.json`` in it says what a user has to know.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from swath.files import atomic_path
from swath.models.export.graph import compare_with_model, plan_export, trace_graph
from swath.models.export.onnx import not_exported
from swath.models.export.registry import ExportOptions, ExportResult, check_file, exporters
from swath.models.model import Model

_LEAST = 2  # steps a side: a program traced with several refuses one, whose memory torch lays out otherwise


@exporters.register("torch")
def export_to_torch(model: Model, out: Path, choices: ExportOptions) -> ExportResult:
    """Write ``.pt2``, which `torch.export.load` opens; call ``.module()(image, gsd)``.

    Raises:
        ContractError: The file's name; a choice is missing or means nothing; it answers otherwise.
    """
    check_file(out, ".pt2", "torch's exported programs are called .pt2")
    planned = plan_export(model, choices, min_size=_LEAST)
    program = trace_graph(planned)
    facts = planned.facts()
    with atomic_path(out) as temporary:
        with temporary.open("wb") as file:
            torch.export.save(program, file, extra_files={"swath.json": json.dumps(facts)})
        with temporary.open("rb") as file:
            again = torch.export.load(file).module()
        facts["difference"] = compare_with_model(planned, again, str(out))
    usage = (
        "import torch\n"
        f"network = torch.export.load({str(out)!r}).module()\n"
        f"{model.output} = network(images, gsd)  # float32, in the sensor's unit; one GSD an image"
    )
    left = not_exported(model, planned.sensor.name)
    if planned.size is None:
        left.append(f"images of fewer than {facts['size_least']} pixels a side")
    return ExportResult(out, usage, tuple(left), facts)
