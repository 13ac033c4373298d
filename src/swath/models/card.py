"""What a model directory says about its model: a card for people, a STAC item for catalogs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from swath.models.contract import Contract
from swath.registry import Registry
from swath.sensors.sensor import Sensor

_MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"


@dataclass(frozen=True)
class TaskCard:
    """What a model card prints about a task.

    Attributes:
        does: What the model does, in the third person.
        images: Shape of its input.
        answer: Its output; ``{classes}`` and ``{boxes}`` are filled in.
        tag: The Hugging Face Hub's name of the task.
        mlm: Its name in STAC's Machine Learning Model extension.
        shape: Dimensions of its output: batch, and so on.
    """

    does: str
    images: str
    output: str
    tag: str
    mlm: str
    shape: tuple[str, ...]


task_cards: Registry[TaskCard] = Registry(
    "model card of the task", "swath.tasks"
)  # filled by `register_task`


def model_card(
    config: Mapping[str, Any], contract: Contract, *, parameters: int, embed_dim: int, step: int
) -> str:
    """README.md of a model directory.

    Args:
        config: Its config.json.
        contract: The contract in it.
        parameters: Number of weights of the encoder.
        embed_dim: Length of an embedding.
        step: Images' sides are multiples of this many pixels.
    """
    name, encoder, objective = config["name"], config["encoder"]["name"], config["objective"]
    sensors = list(contract.sensors)
    example = f"gsd={_example_gsd(contract):g}" + (f", sensor={sensors[0]!r}" if len(sensors) > 1 else "")
    trained = f", trained with {objective['name']}" if objective else ""
    task = _task_of(config)
    lines = [
        "---",
        "library_name: swath",
        f"pipeline_tag: {task.tag if task else 'image-feature-extraction'}",
        "tags: [earth-observation, remote-sensing, " + ", ".join(sensors) + "]",
        "---",
        "",
        f"# {name}",
        "",
        *(_task_lines(task, config, example) if task else []),
        f"Embeddings of {_listed([s.title or s.name for s in contract.sensors.values()])}: encoder "
        f"`{encoder}`, {parameters / 1e6:.1f} million weights, {embed_dim} numbers an image{trained}.",
        "",
        "```python",
        "import swath",
        "",
        'model = swath.load_model("path/to/this/folder")',
        f"vectors = model.embed(images, {example})   # [N, {embed_dim}]",
        "```",
        "",
        f"Images are [N, bands, height, width] with sides that are multiples of {step} pixels, in the unit "
        "and order of bands given below: the model standardizes them itself.",
        "",
        "## Scale",
        "",
        *_scale(contract),
        "",
    ]
    for sensor in contract.sensors.values():
        lines += [f"## Sensor `{sensor.name}`", "", *_sensor(sensor), ""]
    lines += ["## Where it comes from", "", *_provenance(config), ""]
    measured = (
        "its run's folder `report` has those on its test images, with intervals; elsewhere expect others."
        if task
        else "measure it on data of your own with `swath evaluate knn`, which puts simple baselines beside "
        "it."
    )
    lines += [
        "## Limits",
        "",
        f"- No score is part of this card: {measured}",
        "- Other sensors, band orders, units and scales than those above are refused or warned about; do not "
        "work around that by renaming.",
        "- Mind the license of the imagery it was trained on.",
        "",
        f"Model id `{config['id']}`; weights SHA-256 `{config['files']['model.safetensors']}`.",
        "",
    ]
    return "\n".join(lines)


def _task_of(config: Mapping[str, Any]) -> TaskCard | None:
    """The task that a model does; None of an encoder alone."""
    objective = config["objective"]
    return task_cards.find(objective["name"]) if objective else None


def _task_lines(task: TaskCard, config: Mapping[str, Any], example: str) -> list[str]:
    """What the model does, of which classes, and how to ask it."""
    options = config["objective"]["options"]
    classes, head = options["classes"], options.get("head")
    what = f"This model {task.does}, of {len(classes)}: {', '.join(classes)}."
    if options.get("multilabel"):
        what += " An image may have several of them, or none: each has a probability of its own."
    if head:
        what += f" Its head is `{head}`."
    boxes = "obb [M, 5]" if head == "oriented_rcnn" else "boxes [M, 4]"
    answer = task.output.format(classes=len(classes), boxes=boxes)
    return [
        what,
        "",
        "```python",
        "import swath",
        "",
        'model = swath.load_model("path/to/this/folder")',
        f"answer = model.predict(images, {example})   # images {task.images}",
        "model.classes   # names, in the order of the answer",
        "```",
        "",
        f"The answer is {answer}. Whole scenes, with georeference: `swath predict path/to/this/folder "
        "SCENES --out FOLDER`.",
        "",
        "Its encoder by itself gives embeddings:",
        "",
    ]


def _example_gsd(contract: Contract) -> float:
    if contract.gsd_range is not None:
        low, high = contract.gsd_range
        return float(f"{(low * high) ** 0.5:.2g}")
    return contract.reference_gsd


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _scale(contract: Contract) -> list[str]:
    lines = []
    if contract.gsd_mode == "metres":
        lines.append(
            "The ground sample distance (GSD) of every image is given in metres per pixel on the ground; the "
            f"reference is {contract.reference_gsd:g} m."
        )
    else:
        lines.append(
            "The ground sample distance (GSD) is relative, without metres: 1 for an image at its native "
            "resolution, 2 where it was shrunk to half its side."
        )
        if contract.reference_size is not None:
            lines.append(f"Left out, it is {contract.reference_size} / width in pixels.")
    if contract.gsd_range is not None:
        low, high = contract.gsd_range
        unit = " m" if contract.gsd_mode == "metres" else ""
        lines.append(f"Training has seen {low:.4g} to {high:.4g}{unit}; beyond that expect less.")
    else:
        lines.append("Which ones training has seen is not recorded.")
    return lines


def _sensor(sensor: Sensor) -> list[str]:
    lines = [f"{sensor.title}. Statistics: {sensor.statistics_source or 'source not recorded.'}", ""]
    lines += ["| band | common name | wavelength nm | unit | mean | std |", "|---|---|---|---|---|---|"]
    for band in sensor.bands:
        wavelength = f"{band.wavelength:g}" if band.wavelength else ""
        lines.append(
            f"| {band.name} | {band.common_name or ''} | {wavelength} | {band.unit} | {band.mean:.5g} | "
            f"{band.std:.5g} |"
        )
    return lines


def _provenance(config: Mapping[str, Any]) -> list[str]:
    rows = dict(_flat(config["provenance"]))
    if config["objective"]:
        rows |= dict(_flat({"objective": config["objective"]}))
    if not rows:
        return ["Not recorded."]
    return ["| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows.items())]


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        path = f"{prefix}{key}"
        found += _flat(value, path + ".") if isinstance(value, Mapping) else [(path, value)]
    return found


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def mlm_item(
    config: Mapping[str, Any], contract: Contract, *, parameters: int, embed_dim: int, step: int
) -> dict[str, Any]:
    """mlm.json: a STAC 1.1 item with the Machine Learning Model extension 1.4. Arguments as `model_card`.

    A model has no footprint, so its geometry is null; each sensor is one input. Bands are told twice, because
    the extension looks for them in the properties, where STAC allows them only if an asset has some too.
    """
    bands: dict[str, dict[str, Any]] = {}
    for sensor in contract.sensors.values():
        for band in sensor.bands:
            entry: dict[str, Any] = {"name": band.name, "unit": band.unit}
            if band.common_name:
                entry["eo:common_name"] = band.common_name
            if band.wavelength:
                entry["eo:center_wavelength"] = band.wavelength / 1000  # STAC counts in micrometres
            bands.setdefault(band.name, entry)
    provenance = config["provenance"]
    task = _task_of(config)
    does = [task.mlm] if task else []
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_MLM, _EO],
        "id": config["id"],
        "geometry": None,
        "properties": {
            "title": config["name"],
            "datetime": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "mlm:name": config["name"],
            "mlm:architecture": config["encoder"]["name"],
            "mlm:tasks": [*does, "similarity-search"],
            "mlm:framework": "PyTorch",
            "mlm:framework_version": torch.__version__.split("+")[0],
            "mlm:total_parameters": parameters,
            "mlm:memory_size": 4 * parameters,
            "mlm:pretrained": True,
            "mlm:pretrained_source": str(provenance.get("data", "not recorded")),
            "mlm:hyperparameters": {
                "gsd_mode": contract.gsd_mode,
                "reference_gsd": contract.reference_gsd,
                "gsd_range": list(contract.gsd_range) if contract.gsd_range else None,
                "reference_size": contract.reference_size,
                "size_multiple": step,
                "pooling": config["pooling"] or "encoder",
            },
            "mlm:input": [_input(sensor) for sensor in contract.sensors.values()],
            "mlm:output": [
                *([_answer(task, config)] if task else []),
                {
                    "name": "embedding",
                    "tasks": ["similarity-search"],
                    "result": {
                        "shape": [-1, embed_dim],
                        "dim_order": ["batch", "embedding"],
                        "data_type": "float32",
                    },
                },
            ],
            "bands": list(bands.values()),
        },
        "links": [],
        "assets": {
            "model": {
                "href": "./model.safetensors",
                "type": "application/vnd.safetensors",
                "title": "Weights of the encoder",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                "bands": list(bands.values()),
            },
            "config": {
                "href": "./config.json",
                "type": "application/json",
                "title": "Encoder, contract and checksums, as Swath reads them",
                "roles": ["metadata"],
            },
        },
    }


def _answer(task: TaskCard, config: Mapping[str, Any]) -> dict[str, Any]:
    options = config["objective"]["options"]
    sides = {"class": len(options["classes"]), "box": 5 if options.get("head") == "oriented_rcnn" else 4}
    return {
        "name": config["objective"]["name"],
        "tasks": [task.mlm],
        "result": {
            "shape": [sides.get(side, -1) for side in task.shape],
            "dim_order": list(task.shape),
            "data_type": "float32",
        },
        # For machines a name has no spaces or accents; what people call a class is its description.
        "classification:classes": [
            {"value": value, "name": re.sub(r"[^0-9A-Za-z_-]+", "_", name), "description": name}
            for value, name in enumerate(options["classes"])
        ],
    }


def _input(sensor: Sensor) -> dict[str, Any]:
    return {
        "name": sensor.name,
        "bands": list(sensor.band_names),
        "input": {
            "shape": [-1, len(sensor.bands), -1, -1],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "description": f"{sensor.title or sensor.name}, in {sensor.unit}".strip(),
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(sensor.mean, sensor.std, strict=True)
        ],
        "resize_type": None,
    }
