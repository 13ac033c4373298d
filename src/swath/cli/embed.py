"""`swath embed MODEL DATA --to ARCHIVE`: embed a collection, or what is new in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swath.cli.parsing import number_or_name, offset_option

if TYPE_CHECKING:
    from rich.console import Console

    from swath.archive.ingest.run import EmbedReport

_LISTED = 20  # failures printed; the rest is counted


def command(
    model: Annotated[Path, typer.Argument(help="Model directory, as `swath pretrain` writes it.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of images, scenes or classes, CSV table, catalog, STAC file (JSON or geoparquet), "
            "one image, or the URL of a GeoTIFF (https://, s3://, gs://)."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="Archive; made if nothing is there, else added to.")],
    sensor: Annotated[
        str | None,
        typer.Option(
            help="What DATA was taken with: name or YAML file. Of a model of several sensors it chooses the "
            "branch; run once a sensor, into one archive.  \\[default: the model's, if it knows one only]"
        ),
    ] = None,
    gsd: Annotated[
        str | None,
        typer.Option(help="Metres per pixel of images without georeference, or a column of the CSV table."),
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, chips, class_folder, csv or images.")] = "auto",
    chip_size: Annotated[
        str | None,
        typer.Option(
            help="chips: pixels of a chip's side; several, such as 64,128,256, embed every place at each.  "
            "\\[default: 224]"
        ),
    ] = None,
    chip_metres: Annotated[
        str | None,
        typer.Option(
            help="chips: metres of ground under a chip's side, in every scene; several, such as 640,2560, "
            "look at every place at several GSDs (metres over pixels)."
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="chips: pixels from chip to chip.  \\[default: the chip size]", min=1)
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="whole images: pixels of the side that they are brought to.", min=1)
    ] = None,
    resize_mode: Annotated[
        str | None, typer.Option(help="whole images: center_crop or resize.  \\[default: center_crop]")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="chips: only files whose path below DATA matches, such as '*/s2.tif'."),
    ] = None,
    offset_dn: Annotated[float | None, offset_option()] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Fetch what a STAC file or catalog names elsewhere, by URL.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="csv: only the rows of this split.")] = None,
    min_valid: Annotated[
        float, typer.Option(help="Leave out chips with a smaller share of valid pixels.", min=0.0, max=1.0)
    ] = 0.5,
    max_cloud: Annotated[
        float,
        typer.Option(
            help="Leave out chips with a larger share of cloud, where a layer of the product (SCL, QA_PIXEL, "
            "Fmask) or its STAC item's eo:cloud_cover says it; others are kept.",
            min=0.0,
            max=1.0,
        ),
    ] = 1.0,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete rows of files below the folder DATA that are gone.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Chips a forward pass.", min=1)] = 64,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that read.  \\[default: one a CPU, at most 8]  With Ray: workers that embed.",
            min=0,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: a Ray cluster (RAY_ADDRESS, else one on this machine)."),
    ] = "local",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...  \\[default: cuda if there is one]")
    ] = None,
) -> None:
    """Embed a collection into an archive.

    Run it again after new images have come, or after it was interrupted: chips that the archive holds already
    are skipped before their pixels are read, and where a file was touched only chips that look otherwise are
    embedded again. Exit status: 0 if every chip was embedded, 1 if some files or chips could not be (they are
    listed), 2 on an error.

    Examples:

        swath embed model scenes --to chips.archive --sensor sentinel2_l2a --max-cloud 0.2

        swath embed model scenes --to chips.archive --chip-size 64 --chip-metres 640,1280,2560

        torchrun --nproc-per-node 4 --no-python swath embed model scenes --to chips.archive
    """
    from rich.console import Console

    from swath.archive.ingest.embed import embed
    from swath.training.parallel import init_distributed

    with init_distributed("auto" if device is None or device.startswith("cuda") else "cpu") as world:
        console = Console(stderr=True, quiet=not world.first)
        # Under torchrun `cuda` is this process's own GPU.
        own = world.size > 1 and (device is None or device == world.device.type)
        with _progress(console) as advance:
            report = embed(
                model,
                data,
                to,
                sensor=sensor,
                gsd=number_or_name(gsd),
                chip_size=_numbers("--chip-size", chip_size, int),
                chip_metres=_numbers("--chip-metres", chip_metres, float),
                min_valid=min_valid,
                max_cloud=max_cloud,
                prune=prune,
                batch_size=batch_size,
                workers=workers,
                engine=engine,  # type: ignore[arg-type]  # embed_archive refuses others
                device=str(world.device) if own or device is None else device,
                world=world,
                progress=advance,
                layout=layout,
                stride=stride,
                size=size,
                resize_mode=resize_mode,
                split=split,
                pattern=pattern,
                offset_dn=offset_dn,
                remote=remote or None,
            )
        _say(console, report, to, max_cloud)
    if world.first and report.failures:
        raise typer.Exit(1)


def _numbers(option: str, text: str | None, kind: type[int] | type[float]) -> list[Any]:
    """The numbers of a list such as 64,128,256; [None] where the option is not given."""
    if text is None:
        return [None]
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no number, nor several with commas", param_hint=option
        ) from None
    if min(found) <= 0:
        raise typer.BadParameter(f"{text!r}: positive numbers are wanted", param_hint=option)
    return found


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left; yields advance(done, total)."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("embedding"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with bars.Progress(*columns, console=console, speed_estimate_period=120) as bar:
        task = bar.add_task("embedding", total=None, rate="")

        def advance(done: int, total: int) -> None:
            seconds = bar.tasks[0].elapsed or 0.0
            rate = f"{done / seconds:,.1f} chips/s" if done and seconds > 0 else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield advance


def _say(console: Console, report: EmbedReport, to: str, max_cloud: float) -> None:
    """What was done, what was left out and why."""
    from rich.markup import escape

    rate = f" ({report.embedded / report.seconds:,.1f} chips/s)" if report.embedded else ""
    console.print(
        f"[bold]{report.embedded:,}[/] chips embedded into {escape(to)} in {report.seconds:.1f} s{rate}, "
        f"{report.present:,} were there already",
        highlight=False,
        soft_wrap=True,
    )
    if report.screened:
        console.print(f"{report.screened:,} left out: too few valid pixels (--min-valid)", highlight=False)
    if report.refreshed:
        console.print(
            f"{report.refreshed:,} in touched files look as before: not embedded again", highlight=False
        )
    if report.clouded:
        console.print(f"{report.clouded:,} left out: too much cloud (--max-cloud)", highlight=False)
    read = report.embedded + report.refreshed + report.clouded
    if max_cloud < 1 and report.cloud_known < read:
        unknown = read - report.cloud_known
        console.print(f"{unknown:,} kept although nothing says how cloudy they are", highlight=False)
    if report.removed:
        console.print(f"{report.removed:,} removed: their file has changed", highlight=False)
    if report.pruned:
        console.print(f"{report.pruned:,} removed: their file is gone (--prune)", highlight=False)
    if report.failures:
        console.print(f"[bold red]{len(report.failures):,} could not be used:[/]", highlight=False)
        for path, reason in report.failures[:_LISTED]:
            text = reason if path in reason else f"{path}: {reason}"
            console.print(f"  {escape(text)}", highlight=False, soft_wrap=True)
        if len(report.failures) > _LISTED:
            console.print(f"  ... and {len(report.failures) - _LISTED:,} more", highlight=False)
        console.print("exit status 1, because of these", highlight=False)
