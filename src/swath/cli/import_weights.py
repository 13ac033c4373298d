"""`swath import-weights`: an official checkpoint as a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[
        Path, typer.Argument(help="Official checkpoint (.pth, .ckpt). Nothing in it is executed.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model directory to write.")],
    kind: Annotated[str, typer.Option(help="Whose checkpoint: auto, scale_mae, csmae or cmid.")] = "auto",
    sensor: Annotated[
        str | None,
        typer.Option(
            help="Scale-MAE: what it was trained on, a built-in name or your YAML; default: rgb_aerial."
        ),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads, for an encoder of unusual size.")
    ] = None,
    decoder_heads: Annotated[int, typer.Option(min=1, help="The same for the decoder.")] = 16,
) -> None:
    """Turn an official Scale-MAE, CSMAE or CMID checkpoint into a model directory for the other commands.

    A CSMAE model takes BigEarthNet's Sentinel-1 (VH, VV in dB) or Sentinel-2 (10 bands) images; that its
    authors trained it on transposed images is stated in its contract and handled there.

    The weights keep the license that their authors gave them (Scale-MAE: CC-BY-NC-4.0, non-commercial).

    Examples:

      swath import-weights scalemae-vitlarge-800.pth --out models/scale_mae_large

      swath import-weights csmae-cecd/weights.ckpt --out models/csmae_cecd
    """
    from swath.models.importers.import_weights import import_weights

    path = import_weights(
        checkpoint,
        out,
        kind=kind,  # type: ignore[arg-type]  # checked there, with a message
        sensor=sensor,
        heads=heads,
        decoder_heads=decoder_heads,
    )
    typer.echo(f"wrote {path}")
