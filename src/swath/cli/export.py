"""`swath export`: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[Path, typer.Argument(help="Model directory.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; for hub a folder.")],
    to: Annotated[str, typer.Option(help="Format: onnx, torch, hub or timm.")] = "timm",
    sensor: Annotated[
        str | None, typer.Option(help="Which of the model's sensors, where it has several.")
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(min=0, help="timm: metres per pixel that positions are fixed to, if they know it."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side in pixels of the images, where it is fixed: timm, and any Swin."),
    ] = None,
    embeddings_only: Annotated[
        bool, typer.Option("--embeddings-only", help="onnx, torch: without the head of a fine-tuned model.")
    ] = False,
) -> None:
    """Write a model in another program's form.

    onnx: one file for onnxruntime and others. Inputs: image in the sensor's unit, and gsd, one an image;
    normalization is inside. Batch and size are free (a Swin is for one --size). Checked before it is written.

    torch: the same as a torch.export program (.pt2).

    hub: a folder for the Hugging Face Hub, which swath.from_pretrained opens, from there or from the disk.

    timm: weights that `timm.create_model(...)` loads, for the same features. ViT, Swin and CNN.

    A fine-tuned model goes to onnx and torch with its head, unless --embeddings-only is given; to hub as a
    whole; to timm goes the encoder. What a format cannot hold is said, or refused.

    Examples:

      swath export runs/scale/model --to onnx --out scale.onnx

      swath export runs/forest/model --to torch --size 256 --out forest.pt2

      swath export runs/scale/model --to hub --out scale-mae-nano

      swath export runs/cmid/model --to timm --size 224 --gsd 0.5 --out cmid.safetensors
    """
    from swath.models.export.registry import export_model

    found = export_model(
        model, out, to=to, sensor=sensor, gsd=gsd, size=size, embeddings_only=embeddings_only
    )
    typer.echo(f"wrote {found.path}")
    if "difference" in found.facts:
        typer.echo(f"checked: answers as the model does, to {found.facts['difference']:.1g}")
    for line in found.left_behind:
        typer.echo(f"not in it: {line}")
    typer.echo(f"\n{found.usage}")
