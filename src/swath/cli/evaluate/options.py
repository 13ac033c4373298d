"""The options that the verbs of `swath evaluate` share: the same names, meanings and words everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        help="What to score, one or several side by side: a model directory; an official checkpoint; "
        "timm:NAME, timm:NAME@WEIGHTS.safetensors or timm:NAME@pretrained; random:ENCODER; or a baseline: "
        "statistics, histogram, pixels, rcf-plain, rcf. NAME=MODEL gives it a name in the tables.",
        metavar="MODELS...",
    ),
]
DataArgument = Annotated[
    Path,
    typer.Argument(
        help="Labeled images: class folders (split by seed), a folder with train/ and val/ (or test/) class "
        "folders, a CSV table with columns file, class and split, a Parquet table of chips, BigEarthNet, the "
        "name of a known set (`swath datasets list`), or torchgeo:NAME.",
        metavar="DATA",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder for the figures: JSON, CSV, every query's answer, plots."),
]
ScalesOption = Annotated[
    str | None,
    typer.Option(
        help="Sides in pixels that images are area-resized to, such as 16,32,64,128.  \\[default: 12.5, 25, "
        "50 and 100% of the images; linear: 100%]"
    ),
]
GsdsOption = Annotated[
    str | None,
    typer.Option(
        help="Instead of --image-sizes: ground sample distances that images are reduced to, in metres, as "
        "0.6,1.2,2.4; for images of one known GSD."
    ),
]
SeedsOption = Annotated[
    bool,
    typer.Option(
        "--average-seeds",
        help="The models are one method trained with several seeds (MODEL_*): also give mean and interval "
        "over them.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder in which features are kept, to be computed once.  \\[default: the user's cache folder]",
        metavar="DIR",
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Neither look for features on disk nor keep them.")
]
BaselinesOption = Annotated[
    bool,
    typer.Option(
        "--baselines/--no-baselines",
        help="Also score image statistics, histogram, pixels, random convolutional features (RCF) and the "
        "model's own encoder untrained. A model that RCF beats has not earned its training.",
    ),
]
PoolingOption = Annotated[
    str | None,
    typer.Option(
        help="mean, mean_std or cls; several with commas between are scored beside each other.  "
        "\\[default: the model's own]"
    ),
]
SensorOption = Annotated[
    str | None,
    typer.Option(
        help="What the images were taken with, where the model knows several sensors.  \\[default for "
        "baselines: rgb_aerial]"
    ),
]
GsdOption = Annotated[
    str | None,
    typer.Option(
        help="Metres per pixel, or a column of the CSV table.  \\[default: the column gsd_m, or the files' "
        "georeference]"
    ),
]
GsdModeOption = Annotated[
    str | None,
    typer.Option(
        help="Tell the model scale in metres, or relative to the images' native side, whatever it was "
        "trained on: to measure which helps.  \\[default: the model's own mode]"
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        help="Tables: column of the classes; several with commas between: a column a label, 0 or 1.  "
        "\\[default: class or label]"
    ),
]
SeparatorOption = Annotated[
    str | None,
    typer.Option(
        "--label-separator", help="CSV: the column holds several labels with this between, such as |."
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help="BigEarthNet: multi, or single for the places with one label only.  \\[default: multi]"
    ),
]
RootOption = Annotated[
    Path | None, typer.Option(help="Folder of data sets, for sets known by name.", metavar="DIR")
]
BandsOption = Annotated[
    str | None,
    typer.Option(
        help="Three bands that a model of timm sees as red, green and blue, such as red,green,blue or "
        "B08,B04,B03."
    ),
]
SplitOption = Annotated[
    str | None, typer.Option(help="CSV: column of the split.  \\[default: split or split]")
]
BankOption = Annotated[str, typer.Option(help="Split or folder that is learned from.")]
QueriesOption = Annotated[
    str | None, typer.Option(help="Split or folder that is classified.  \\[default: val or test]")
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        help="CSV: column that images of the same ground share; they must not stand on both sides.  "
        "\\[default: overlap_group]"
    ),
]
OverlapOption = Annotated[
    bool, typer.Option("--allow-overlap", help="Score a split that does so all the same, with a note.")
]
SizeOption = Annotated[
    int | None, typer.Option(help="Images of different sizes: bring all to this side first.", min=8)
]
OffsetOption = Annotated[
    float | None,
    typer.Option(
        "--offset-dn",
        help="Added to stored values before scaling, for Sentinel-2 files that do not say their processing "
        "baseline: -1000 from baseline 04.00, 0 before.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of the split, where the data has none of its own.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]")]
BatchOption = Annotated[int, typer.Option(help="Images a forward pass.", min=1)]
