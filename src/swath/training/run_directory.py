"""The folder of a run: what is in it, who may write in it, and whether this command may continue it.

::

    RUN/
      recipe.yaml       the resolved recipe
      run.json          data folder and its fingerprint, versions, when it began
      metrics.jsonl     a line a logged step;  metrics.csv: the same as a table
      skipped.jsonl     files that could not be read
      tensorboard/      the metrics once more
      checkpoints/      step_00000500/ ...
      images/           step_00000500.png ...
      model/            the model directory, when the run is done
      best/             fine-tuning: the weights that did best on the validation split
      report/           fine-tuning: what the model does on the test split
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from swath.datasets.protocol import ImageDataset, PairedDataset
from swath.errors import RecipeError, TrainingError
from swath.locks import exclusive_lock
from swath.training.config.recipe import BaseRecipe, diff_recipes
from swath.yaml_io import read_yaml

Start = Literal["auto", "resume", "fresh"]

OURS = (
    "recipe.yaml", "run.json", "metrics.jsonl", "metrics.csv", "skipped.jsonl",
    "tensorboard", "checkpoints", "images", "model", "best", "report",
)  # fmt: skip
_RENAMED = {"problems.jsonl": "skipped.jsonl", "pictures": "images"}  # in runs of Swath 0.1


class RunDirectory:
    """Paths below a run's folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.recipe = self.root / "recipe.yaml"
        self.info = self.root / "run.json"
        self.metrics = self.root / "metrics.jsonl"
        self.table = self.root / "metrics.csv"
        self.skipped = self.root / "skipped.jsonl"
        self.tensorboard = self.root / "tensorboard"
        self.checkpoints = self.root / "checkpoints"
        self.images = self.root / "images"
        self.model = self.root / "model"
        self.best = self.root / "best"
        self.report = self.root / "report"

    def prepare(self, recipe: BaseRecipe, start: Start) -> None:
        """Make the folder ready, or refuse.

        Args:
            recipe: Of this command.
            start: ``auto`` continues a run of the same recipe and otherwise begins one, also where one of
                another recipe came to nothing before its first step; ``resume`` only continues; ``fresh``
                removes what an earlier run left and begins.

        Raises:
            RecipeError: The folder holds a run of another recipe; says what differs.
            TrainingError: Nothing to resume, or a folder with other things in it.
        """
        there = self.recipe.is_file()
        for old_name, name in _RENAMED.items() if there else ():
            if (self.root / old_name).exists() and not (self.root / name).exists():
                (self.root / old_name).rename(self.root / name)
        if start == "resume" and not there:
            raise TrainingError(f"{self.root}: there is no run to resume; omit --resume to start one")
        if start == "fresh":
            self._clear()
        elif there:
            old = type(recipe).parse(read_yaml(self.recipe), where=str(self.recipe))
            changed = diff_recipes(old, recipe)
            if changed and (self._begun() or start == "resume"):
                raise RecipeError(
                    f"{self.root}: holds a run of another recipe. Choose another folder with --out, or start "
                    "over here with --fresh, which removes it. What differs:\n  " + "\n  ".join(changed)
                )
            if changed:
                self._clear()
        elif self.root.exists() and (not self.root.is_dir() or any(self._strangers())):
            raise TrainingError(
                f"{self.root}: exists and is not a run's folder; choose another with --out (nothing was "
                "touched)"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            recipe.write(self.recipe)
        except OSError as error:
            raise TrainingError(f"{self.root}: cannot be written ({error.strerror or error})") from None
        self._sweep()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second process.

        Raises:
            TrainingError: Another process trains here.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.root}: cannot be written ({error.strerror or error})") from None
        occupied = "is training in this folder; wait for it, or choose another with --out"
        with exclusive_lock(self.root / ".lock", TrainingError, occupied):
            yield

    def _strangers(self) -> Iterator[Path]:
        return (path for path in self.root.iterdir() if path.name not in (*OURS, ".lock"))

    def _begun(self) -> bool:
        """Whether something has been trained; a command that failed before stands in nobody's way."""
        kept = (self.checkpoints, self.model, self.best)
        return any(any(folder.iterdir()) for folder in kept if folder.is_dir()) or (
            self.metrics.is_file() and self.metrics.stat().st_size > 0
        )

    def _clear(self) -> None:
        for name in OURS:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what writers left that were killed halfway (see `swath.files`)."""
        for folder in (self.root, self.checkpoints, self.images):
            for pattern in (".*.tmp", ".*.old"):
                for path in folder.glob(pattern) if folder.is_dir() else ():
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def fingerprint(dataset: ImageDataset | PairedDataset) -> dict[str, Any]:
    """What must be the same of the data for a run to continue: number of samples, files and their names."""
    names = "\n".join(Path(path).name for path in dataset.paths)
    return {
        "samples": len(dataset),
        "files": len(dataset.paths),
        "names": hashlib.sha256(names.encode()).hexdigest()[:16],
        "sensor": "+".join(sensor.name for sensor in dataset.sensors)
        if isinstance(dataset, PairedDataset)
        else dataset.sensor.name,
    }
