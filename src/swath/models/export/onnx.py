"""A model as an ONNX file: one function of images and GSDs, with normalization inside
(`swath.models.export.graph`).

Batch and, but for Swin, image size are free. The file is run by onnxruntime before it is written and must
answer as the model does, to 1e-4. What a user of the file has to know stands in its ``metadata_props``.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from swath.errors import ContractError, SwathError
from swath.files import atomic_path
from swath.models.export.graph import compare_with_model, plan_export, trace_graph
from swath.models.export.registry import ExportOptions, ExportResult, check_file, exporters
from swath.models.model import Model

_LARGEST = 2**31 - 2**20  # bytes of one protobuf message


@exporters.register("onnx")
def export_to_onnx(model: Model, out: Path, choices: ExportOptions) -> ExportResult:
    """Write ``.onnx``: inputs ``image`` and ``gsd``, output ``embedding`` or ``probabilities``.

    Raises:
        ContractError: The file's name; a choice is missing or means nothing; the file does not answer as the
            model does.
        SwathError: The extra packages are not installed.
    """
    check_file(out, ".onnx", "an ONNX file is called .onnx")
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx writes with
    except ImportError as error:
        raise SwathError(f"ONNX needs packages that are not there ({error}): pip install '.[onnx]'") from None
    planned = plan_export(model, choices)
    if sum(p.numel() * p.element_size() for p in model.parameters()) > _LARGEST:
        raise ContractError(f"{model.name}: an ONNX file holds 2 GB; export with --to torch")
    program = trace_graph(planned)
    file: Any = _convert(program, planned.example(2, 3, 4), model.output).model_proto
    facts = planned.facts()
    for key, value in facts.items():
        if value is not None:
            file.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(file)
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(image: torch.Tensor, gsd: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy(), "gsd": gsd.numpy()})[0])

    facts["difference"] = compare_with_model(planned, run, str(out))
    with atomic_path(out) as temporary:
        onnx.save(file, str(temporary))
    usage = (
        "import onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(out)!r})\n"
        f'{model.output}, = session.run(None, {{"image": images, "gsd": gsd}})'
        "  # float32, in the sensor's unit; one GSD an image"
    )
    return ExportResult(out, usage, tuple(not_exported(model, planned.sensor.name)), facts)


def not_exported(model: Model, sensor: str) -> list[str]:
    """What no exported graph holds."""
    left = ["the contract's checks: it takes images of wrong units or bands without a word"]
    if len(model.contract.sensors) > 1:
        left.append(f"the model's other sensors; this is for {sensor}")
    return left


def _convert(program: torch.export.ExportedProgram, example: tuple[Any, ...], output: str) -> Any:
    """torch's own converter, which tells nobody of its inner warnings."""
    noisy = logging.getLogger("onnxscript")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                program, example, input_names=["image", "gsd"], output_names=[output], verbose=False
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ContractError(
            f"the network has a part that ONNX does not know ({str(error).splitlines()[0]})"
        ) from error
    finally:
        noisy.setLevel(level)
