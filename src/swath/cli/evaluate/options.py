"""The options that the commands of `swath evaluate` share, listed once.

A command takes them as one object::

    @with_eval_options(without=("gsds",))
    def embedding(options: EvalOptions, k: ... = 20) -> None: ...

and Typer sees a function with an argument or option for every field, after the command's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from swath.cli.parsing import offset_option

_DATA, _RUN = "Reading the data", "Running"


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What all evaluations are told; the words of each field are its help on the command line."""

    models: Annotated[
        list[str],
        typer.Argument(
            help="What to score, one or several side by side: a model directory; an official checkpoint; "
            "timm:NAME, timm:NAME@WEIGHTS.safetensors or timm:NAME@pretrained; random:ENCODER; or a "
            "baseline: statistics, histogram, pixels, rcf-plain, rcf. NAME=MODEL gives it a name in the "
            "tables.",
            metavar="MODELS...",
        ),
    ]
    data: Annotated[
        Path,
        typer.Argument(
            help="Labeled images: class folders (split by seed), a folder with train/ and val/ (or test/) "
            "class folders, a CSV table with columns file, class and split, a Parquet table of chips, "
            "BigEarthNet, the name of a known set (`swath datasets list`), or torchgeo:NAME.",
            metavar="DATA",
        ),
    ]
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the figures: JSON, CSV, every prediction, plots."),
    ] = None
    image_sizes: Annotated[
        str | None,
        typer.Option(
            help="Sides in pixels that images are area-resized to, such as 16,32,64,128.  \\[default: 12.5, "
            "25, 50 and 100% of the images; linear: 100%]"
        ),
    ] = None
    gsds: Annotated[
        str | None,
        typer.Option(
            help="Instead of --image-sizes: ground sample distances that images are reduced to, in metres, "
            "as 0.6,1.2,2.4; for images of one known GSD."
        ),
    ] = None
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines/--no-baselines",
            help="Also score image statistics, histogram, pixels, random convolutional features (RCF) and "
            "the model's own encoder untrained. A model that RCF beats has not earned its training.",
        ),
    ] = True
    average_seeds: Annotated[
        bool,
        typer.Option(
            "--average-seeds",
            help="The models are one method trained with several seeds (MODEL_*): also give mean and "
            "interval over them.",
        ),
    ] = False
    pooling: Annotated[
        str | None,
        typer.Option(
            help="mean, mean_std or cls; several with commas between are scored beside each other.  "
            "\\[default: the model's own]"
        ),
    ] = None
    train_split: Annotated[str, typer.Option(help="Split or folder that is learned from.")] = "train"
    test_split: Annotated[
        str | None, typer.Option(help="Split or folder that is scored.  \\[default: val or test]")
    ] = None
    sensor: Annotated[
        str | None,
        typer.Option(
            help="What the images were taken with, where the model knows several sensors.  \\[default for "
            "baselines: rgb_aerial]",
            rich_help_panel=_DATA,
        ),
    ] = None
    bands: Annotated[
        str | None,
        typer.Option(
            help="Three bands that a model of timm sees as red, green and blue, such as red,green,blue or "
            "B08,B04,B03.",
            rich_help_panel=_DATA,
        ),
    ] = None
    gsd: Annotated[
        str | None,
        typer.Option(
            help="Metres per pixel of images that do not state it, or a column of the CSV table.  "
            "\\[default: the column gsd_m, or the files' georeference]",
            rich_help_panel=_DATA,
        ),
    ] = None
    gsd_mode: Annotated[
        str | None,
        typer.Option(
            help="Tell the model scale in metres, or relative to the images' native side, whatever it was "
            "trained on: to measure which helps.  \\[default: the model's own mode]",
            rich_help_panel=_DATA,
        ),
    ] = None
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Tables: column of the classes; several with commas between: a column a label, 0 or 1.  "
            "\\[default: class or label]",
            rich_help_panel=_DATA,
        ),
    ] = None
    label_separator: Annotated[
        str | None,
        typer.Option(
            help="CSV: the column holds several labels with this between, such as |.", rich_help_panel=_DATA
        ),
    ] = None
    label_mode: Annotated[
        str | None,
        typer.Option(
            help="BigEarthNet: multi, or single for the places with one label only.  \\[default: multi]",
            rich_help_panel=_DATA,
        ),
    ] = None
    split_column: Annotated[
        str | None,
        typer.Option(help="CSV: column of the split.  \\[default: split, else fold]", rich_help_panel=_DATA),
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(
            help="CSV: column that images of the same ground share; a group is never in two splits.  "
            "\\[default: overlap_group]",
            rich_help_panel=_DATA,
        ),
    ] = None
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap",
            help="Score a split whose groups are in both parts, with a note.",
            rich_help_panel=_DATA,
        ),
    ] = False
    size: Annotated[
        int | None,
        typer.Option(
            help="Images of different sizes: bring all to this side first.", min=8, rich_help_panel=_DATA
        ),
    ] = None
    offset_dn: Annotated[float | None, offset_option(_DATA)] = None
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of data sets, for sets known by name.", metavar="DIR", rich_help_panel=_DATA
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Folder in which features are kept, to be computed once.  \\[default: the user's cache "
            "folder]",
            metavar="DIR",
            rich_help_panel=_RUN,
        ),
    ] = None
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Neither look for features on disk nor keep them.", rich_help_panel=_RUN
        ),
    ] = False
    seed: Annotated[
        int,
        typer.Option(help="Of the split, where the data has none of its own.", rich_help_panel=_RUN),
    ] = 0
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]", rich_help_panel=_RUN),
    ] = None
    batch_size: Annotated[int, typer.Option(help="Images a forward pass.", min=1, rich_help_panel=_RUN)] = 64


_ARGUMENTS = ("models", "data", "out")


def with_eval_options(
    *, without: Collection[str] = (), **fixed: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared options.

    Args:
        without: Fields that this command has no option for; they keep their defaults.
        fixed: Other defaults; of fields without an option the value that they have.
    """
    hints = get_type_hints(EvalOptions, include_extras=True)
    shared = {
        field.name: inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=fixed.get(
                field.name, inspect.Parameter.empty if field.default is MISSING else field.default
            ),
            annotation=hints[field.name],
        )
        for field in fields(EvalOptions)
        if field.name not in without
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        named = {parameter.name: parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own}
        first = [shared[name] for name in _ARGUMENTS if name in shared and name not in named]
        rest = [parameter for name, parameter in shared.items() if name not in (*_ARGUMENTS, *named)]

        @wraps(command)
        def run(**given: Any) -> None:
            options = {name: given[name] for name in shared if name in given}
            command(EvalOptions(**{**fixed, **options}), **{name: given[name] for name in named})

        parameters = [*first, *named.values(), *rest]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
