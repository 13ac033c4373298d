"""`swath pretrain RECIPE --data DIR --out RUN`: train a model without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swath.training.config.recipe import PretrainRecipe


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML); configs/ has some to begin with.")],
    data: Annotated[
        Path, typer.Option("--data", help="Folder of images, scenes or classes, CSV table, or catalog.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The run's folder: metrics, checkpoints, model.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one key, such as training.epochs=50. Repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only continue; refuse to begin where there is no run.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove the run that is in --out, and start over.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check recipe, data and model, say what would be done, and stop."),
    ] = False,
) -> None:
    """Train a model without labels, by a recipe.

    [bold]The same command continues a run that was stopped[/bold], however it was stopped: it goes on from
    the newest valid checkpoint in --out. A run of another recipe is refused, with what differs.

    [bold]Several processes:[/bold] torchrun --nproc-per-node 8 -m swath.cli.main pretrain RECIPE ...

    [bold]Exit status:[/bold] 0 done; 2 something is to be put right (the message says what); 143 or 130
    stopped by SIGTERM or Ctrl-C, after saving.

    [dim]Example:[/dim] swath pretrain configs/scale_mae_small_cpu.yaml --data images/ --out runs/first
    --set sensor=sentinel2_l2a --set training.steps=2000
    """
    from swath.errors import RecipeError
    from swath.training.config.recipe import load_recipe
    from swath.training.pretraining import pretrain
    from swath.training.signals import TrainingInterrupted

    if resume and fresh:
        raise RecipeError("--resume and --fresh contradict each other: give one of them")
    resolved = load_recipe(recipe, settings or [])
    first = _is_first_process()
    if first:
        _print_recipe(resolved)
    if dry_run:
        _describe(resolved, data)
        return
    try:
        pretrain(
            resolved, data, out, start="resume" if resume else "fresh" if fresh else "auto", progress=True
        )
    except TrainingInterrupted as stop:
        if first:
            typer.echo(str(stop), err=True)
        raise typer.Exit(stop.exit_status) from None
    if first:
        typer.echo(f"model: {out / 'model'}")


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _print_recipe(recipe: PretrainRecipe) -> None:
    """The resolved recipe, defaults and all, as it is stored in the run."""
    from rich.console import Console
    from rich.syntax import Syntax

    from swath.yaml_io import yaml_text

    console = Console(stderr=True)
    text = yaml_text(recipe.to_dict())
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        typer.echo(text, err=True)  # as it is, for a log


def _describe(recipe: PretrainRecipe, data: Path) -> None:
    """What a run would do, found out without a step."""
    from swath.datasets.collation import split_by_sensor
    from swath.training.budget import Budget
    from swath.training.build import build_contract, build_objective, dataset_sensors, open_training_data
    from swath.training.loading import BatchLoader

    dataset = open_training_data(recipe, data)
    contract = build_contract(recipe, dataset_sensors(dataset))
    batches = BatchLoader(dataset, seed=recipe.seed, batch_size=recipe.training.batch_size)
    budget = Budget(recipe.training, batches.steps_per_epoch)
    objective = build_objective(recipe, dataset_sensors(dataset))
    sizes = {name: p.numel() for name, p in objective.named_parameters()}
    encoder = sum(size for name, size in sizes.items() if name.startswith("encoder."))
    few = batches.fetch(0, list(range(min(2, len(dataset)))))
    for one in split_by_sensor(few).values():
        contract.check(one["image"], one["sensor"], valid=one.get("valid"))
    views = objective.views(contract.normalize(few))  # type: ignore[operator]

    typer.echo(f"samples      {len(dataset)} ({len(dataset.problems)} files left out)")
    unit = "m" if recipe.gsd_mode == "metres" else "(relative)"
    for name, one in split_by_sensor(few).items():
        shape = "x".join(map(str, one["image"].shape[1:]))
        gsd = sorted(one["gsd"].tolist())
        typer.echo(f"a sample     {name}, {shape}, GSD {gsd[0]:.4g} to {gsd[-1]:.4g} {unit}")
    for name, value in views.items():
        for sensor, view in value.items() if isinstance(value, dict) else [("", value)]:
            if hasattr(view, "shape"):
                shape = "x".join(map(str, view.shape[1:])) or "one number"
                typer.echo(f"view         {name}{sensor and ' of ' + sensor}: {shape} a sample")
    typer.echo(f"parameters   {sum(sizes.values()):,} ({encoder:,} in the encoder, {recipe.encoder.name})")
    steps = f"{budget.steps} steps" if budget.steps else f"{recipe.training.cpu_minutes:g} CPU minutes"
    typer.echo(f"budget       {steps}; an epoch has {batches.steps_per_epoch} steps")
    typer.echo(f"peak lr      {recipe.learning_rate:.3g}, reached after {budget.warmup:.1%} of the budget")
    for path, reason in dataset.problems[:5]:
        typer.echo(f"left out     {reason if path in reason else f'{path}: {reason}'}")
