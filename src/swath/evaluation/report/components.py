"""What the sections of the report page share: where a figure comes from, charts in a row, thumbnails."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from swath.datasets.protocol import ImageDataset
from swath.evaluation.report.data import ReportData
from swath.reporting import charts as svg
from swath.reporting.html import SafeHtml, figure, jpeg

_TILE = 112


def charts(names: Sequence[str], panels: Sequence[str], caption: str, line: str) -> str:
    """Charts side by side with their key, caption and origin."""
    keys = svg.legend(names, lines=True) if names else ""
    return keys + figure(SafeHtml(f'<div class="panels">{"".join(panels)}</div>'), caption, after=line)


def origin_line(report_data: ReportData, protocol: dict[str, Any], config_hash: str) -> str:
    """What every figure carries: protocol, hashes, software and command."""
    facts = report_data.origin(protocol, config_hash)
    return (
        f'<span class="origin">{escape(facts["protocol"])} · configuration {facts["config_hash"]} · split '
        f"{facts['split_hash']} · {escape(facts['software'])} · "
        f"<code>{escape(facts['command'])}</code></span>"
    )


def origin(report_data: ReportData, protocol: dict[str, Any], config_hash: str) -> str:
    """The origin of a table, beneath it."""
    return f'<p class="quiet">{origin_line(report_data, protocol, config_hash)}</p>'


def format_optional(value: float | None, form: str) -> str:
    """A number in its form; nothing where it is not known."""
    return "" if value is None else form.format(value)


def short_path(path: str) -> str:
    """Folder and name of a file."""
    return "/".join(Path(path).parts[-2:])


def image_figure(images: dict[int, bytes], index: int, kind: str, name: str, more: str) -> str:
    """An image with its name and a line beneath; `kind` chooses the frame."""
    if index not in images:
        inside = '<div class="quiet">not readable</div>'
    else:
        data = base64.b64encode(images[index]).decode()
        inside = f'<img alt="{escape(f"{kind}: {name}")}" src="data:image/jpeg;base64,{data}">'
    return f'<div class="tile {kind}">{inside}<b>{escape(name)}</b><br>{escape(more)}</div>'


def image_tiles(dataset: ImageDataset, indices: Sequence[int]) -> dict[int, bytes]:
    """Images by position as small JPEGs; 8-bit color as it is, others stretched together."""
    from PIL import Image

    from swath.reporting.rgb import composite

    requested = sorted(set(indices))
    if not requested:
        return {}
    batch = dataset.get_batch(requested)
    if not len(batch["image"]):
        return {}
    if dataset.sensor.unit == "uint8" and batch["image"].shape[1] == 3:
        tiles = list(batch["image"].clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    else:
        tiles = composite(batch, dataset.sensor)
    images = {}
    for index, tile in zip(batch["index"].tolist(), tiles, strict=True):
        image = Image.fromarray(tile)
        kernel = Image.Resampling.LANCZOS if min(image.size) > _TILE else Image.Resampling.NEAREST
        images[int(index)] = jpeg(image.resize((2 * _TILE, 2 * _TILE), kernel), quality=80)
    return images
