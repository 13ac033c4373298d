"""A trained model in forms that other programs read.

Each format is a registered function; ``swath export --to NAME`` finds it by name, and packages add their own
under the entry-point group ``swath.exporters``. An exporter refuses a model that the format cannot hold, and
choices (a GSD, a size) that mean nothing there, and says what it had to leave behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swath.errors import ContractError, SwathError
from swath.models.directory import load_model
from swath.models.model import Model
from swath.registry import Registry


@dataclass(frozen=True)
class ExportOptions:
    """What a user may fix of a model that takes more than a format can hold.

    Attributes:
        source: The model's directory, where it was loaded from one.
        sensor: Which of its sensors' images the exported encoder takes; None where it has one.
        gsd: Metres per pixel of these images (or their ratio in relative mode); None: not stated.
        size: Their side in pixels; None: not stated.
    """

    sensor: str | None = None
    gsd: float | None = None
    size: int | None = None
    source: Path | None = None


@dataclass(frozen=True)
class ExportResult:
    """What an exporter wrote.

    Attributes:
        path: The file.
        usage: Lines of Python that load it.
        left_behind: What of the model the format does not hold, for people.
        facts: More that programs may want; JSON-safe.
    """

    path: Path
    usage: str
    left_behind: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


Exporter = Callable[[Model, Path, ExportOptions], ExportResult]
exporters: Registry[Exporter] = Registry("export format", "swath.exporters")


def check_file(out: Path, ending: str, what: str) -> None:
    """Refuse a name that a format's file cannot have, before any work is done.

    Args:
        out: The file to write.
        ending: Of its name, such as ``.onnx``.
        what: Such as "an ONNX file is called .onnx".

    Raises:
        ContractError: Another ending, or there is a folder of that name.
    """
    if out.suffix != ending:
        raise ContractError(f"{out}: {what}; name the file so")
    if out.is_dir():
        raise ContractError(f"{out}: is a folder; name a file that is written")


def export_model(
    model: str | Path | Model,
    out: str | Path,
    *,
    to: str = "timm",
    sensor: str | None = None,
    gsd: float | None = None,
    size: int | None = None,
    embeddings_only: bool = False,
) -> ExportResult:
    """Write a model in another program's form.

    Args:
        model: A model directory, or a model. A fine-tuned one goes to ``onnx`` and ``torch`` with its head,
            to ``hub`` as a whole, and to ``timm`` as its encoder.
        out: The file (of ``hub``: the folder) to write; one that exists is replaced, whole or not at all.
        to: The format, one of ``exporters.names()``.
        sensor: See `ExportOptions`.
        gsd: See `ExportOptions`.
        size: See `ExportOptions`.
        embeddings_only: To ``onnx`` and ``torch`` write the encoder of a fine-tuned model without its head.

    Raises:
        SwathError: Unknown format; the format cannot hold this model, or needs to be told more.
    """
    write = exporters.get(to)
    if embeddings_only and to in ("hub", "timm"):
        raise SwathError(f"embeddings_only is for the formats onnx and torch; {to} has a fixed content")
    source = None
    if not isinstance(model, Model):
        source = Path(model)
        model = load_model(source)
    if embeddings_only:
        model = model.encoder_model
    return write(model, Path(out), ExportOptions(sensor, gsd, size, source))


export = export_model  # as `swath.export`
