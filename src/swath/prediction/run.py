"""Prediction of many scenes: what is done already is skipped, what fails is listed, and a killed run goes on.

Everything lies in the out folder: results, ``predictions.json`` (what came out of every scene, and what is
wrong with those that failed), and the hidden folder ``.predict`` with a record a finished scene and the state
of the one that was begun.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import swath.prediction.maps
import swath.prediction.objects
import swath.prediction.tables  # noqa: F401 - registers its writer, as the two above
from swath._version import __version__
from swath.errors import SwathError
from swath.files import write_json
from swath.prediction.inputs import SceneInput, find_scene_inputs
from swath.prediction.options import PredictionOptions
from swath.prediction.scene_view import ModelView, check_registration, match_view_radiometry, open_model_view
from swath.prediction.tile_loop import RuntimeOptions, predict_tiles
from swath.prediction.writers import (
    OutputTarget,
    OutputWriter,
    SceneOutput,
    SceneProgress,
    WriterInputs,
    find_writer,
)
from swath.renames import stored_names
from swath.tasks.model import TaskModel, load_task_model
from swath.tiling.grid import TileGrid

VERSION = 1  # of what a result is: raised when the same scene, model and options give another one
Status = Literal["done", "present", "failed"]


@dataclass
class SceneResult:
    """What came out of a scene.

    Attributes:
        scene: Its path; of a pair both.
        name: How its results begin.
        status: ``done`` by this run, ``present`` from an earlier one, or ``failed``.
        files: By kind, relative to the out folder.
        summary: What is in them.
        notes: What people should know.
        problem: Why it failed.
        pixels: (width, height) of what was looked at.
        native_gsd: Of the file.
        gsd: Of what was looked at.
        tiles: How many.
        seconds: That they took.
    """

    scene: str
    name: str
    status: Status
    files: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None
    pixels: tuple[int, int] | None = None
    native_gsd: float | None = None
    gsd: float | None = None
    tiles: int = 0
    seconds: float = 0.0


@dataclass
class PredictReport:
    """What a run did.

    Attributes:
        scenes: A record a scene, in order.
        path: ``predictions.json``.
    """

    scenes: list[SceneResult]
    path: Path

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(scene, reason) of those that could not be used."""
        return [(scene.scene, scene.problem or "") for scene in self.scenes if scene.status == "failed"]

    def count(self, status: Status) -> int:
        """Scenes of a status."""
        return sum(scene.status == status for scene in self.scenes)


@dataclass(frozen=True)
class PredictionProgress:
    """How far a run has come.

    Attributes:
        done: Tiles.
        total: Tiles of all scenes that are to be done.
        scene: Which is being done.
    """

    done: int
    total: int
    scene: str


def predict_scenes(
    model: TaskModel | str | Path,
    scenes: Sequence[str | Path | SceneInput] | str | Path,
    out: str | Path,
    options: PredictionOptions | None = None,
    *,
    runtime: RuntimeOptions | None = None,
    progress: Callable[[PredictionProgress], None] | None = None,
) -> PredictReport:
    """Apply a task model to whole scenes.

    Maps of classes become ``NAME_classes.tif`` (COG, with colors and names), on request
    ``NAME_probabilities.tif`` and polygons; classes of tiles ``NAME_windows.gpkg`` and ``.parquet``; objects
    ``NAME_objects.gpkg`` and ``.parquet``; all in the CRS of the scene. Where a scene has no data, results
    have none.

    The result depends on the model, the scene and `options`, and on nothing else: neither `runtime` nor an
    interruption changes a pixel (up to the rounding of the network itself between batches of different
    sizes).

    Args:
        model: From `swath.load_model`, or the directory of a fine-tuned model.
        scenes: Files, folders, tables (see `find_sources`), or sources as `pair_of` makes them.
        out: Folder of the results. Scenes whose results are there, of the same file, model and options, are
            skipped; one that was begun is continued.
        options: What decides the result.
        runtime: How the work is done.
        progress: Called often.

    Raises:
        SwathError: Nothing to predict, options that make no sense, a full disk. What is wrong with a single
            scene is in the report.
    """
    if not isinstance(model, TaskModel):
        model = load_task_model(model)
    chosen, runtime = (options or PredictionOptions()).resolved(model), runtime or RuntimeOptions()
    find_writer(model, chosen)  # raises before any scene is read
    out = Path(out)
    given = [scenes] if isinstance(scenes, str | Path) else list(scenes)
    sources = [one for one in given if isinstance(one, SceneInput)]
    places = [one for one in given if not isinstance(one, SceneInput)]
    if places:
        sources += find_scene_inputs(places, model.contract.sensor(), model.dates)
    run = _PredictionRun(model, chosen, runtime, out, _identity(model))
    jobs = [_Job.plan(run, source) for source in sources]
    records: list[SceneResult] = []
    done, total = 0, sum(job.tiles for job in jobs)
    try:
        for job in jobs:

            def advance(tiles: int, name: str = job.source.label) -> None:
                nonlocal done
                done += tiles
                if progress is not None:
                    progress(PredictionProgress(done, total, name))

            before = done
            records.append(job.carry_out(run, advance))
            done = before + job.tiles  # also where it failed half-way
    finally:
        report = PredictReport(records, out / "predictions.json")
        _write_report(run, report)
    return report


predict = predict_scenes  # as `swath.predict`


@dataclass(frozen=True)
class _PredictionRun:
    """What all scenes of a run share."""

    model: TaskModel
    options: PredictionOptions
    runtime: RuntimeOptions
    out: Path
    identity: str

    def hidden(self, source: SceneInput, ending: str) -> Path:
        """A file or folder of ours that belongs to a scene."""
        return self.out / ".predict" / f"{source.name}{ending}"


@dataclass
class _Job:
    """One scene of a run: planned from its header, then carried out."""

    source: SceneInput
    record: SceneResult
    look: ModelView | None = None
    grid: TileGrid | None = None
    fingerprint: str = ""

    @property
    def tiles(self) -> int:
        """Tiles that are to be done."""
        return len(self.grid) if self.grid is not None and self.record.status == "done" else 0

    @classmethod
    def plan(cls, run: _PredictionRun, source: SceneInput) -> Self:
        """Look at headers: a scene that is of no use, or done, is known before anything is decoded."""
        record = SceneResult(source.label, source.name, "done")
        job = cls(source, record)
        try:
            headers = source.headers()
            model, options = run.model, run.options
            look = open_model_view(headers, model.contract.sensor(), model.contract, options, source.gsd)
            stored = stored_names(options.to_dict(), "prediction")  # a scene begun under old names resumes
            job.fingerprint = _digest([VERSION, run.identity, stored, source.stamps(), source.gsd])
        except (SwathError, OSError) as error:
            record.status, record.problem = "failed", str(error)
            return job
        job.look, job.grid = (
            look,
            TileGrid.of(look.height, look.width, options.tile or 1, options.overlap or 0),
        )
        held = _read_record(run.hidden(source, ".json"))
        if held.get("fingerprint") == job.fingerprint:
            known = SceneResult(**held["record"])
            if all((run.out / file).is_file() for file in known.files.values()):
                known.status = "present"
                job.record = known
                return job
        record.pixels, record.tiles = (look.width, look.height), len(job.grid)
        record.gsd, record.native_gsd = look.gsd, look.native_gsd
        record.notes = list(look.notes)
        return job

    def carry_out(self, run: _PredictionRun, advance: Callable[[int], None]) -> SceneResult:
        """Predict, unless there is nothing to do; what is wrong with the scene goes into the record."""
        record = self.record
        if record.status != "done":
            return record
        started = time.monotonic()
        try:
            result = self._predict(run, advance)
        except SwathError as error:
            record.status, record.problem = "failed", str(error)
            return record
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SwathError(
                    f"{run.out}: the disk is full while {record.scene} is written. Make room; the same "
                    "command continues"
                ) from None
            record.status, record.problem = "failed", f"{record.scene}: {error}"
            return record
        finally:
            record.seconds = round(time.monotonic() - started, 3)
            self.look = None  # a decoded picture goes with it
        below = Path(record.name).parent
        record.files = {kind: (below / file).as_posix() for kind, file in result.files.items()}
        record.summary, record.notes = result.summary, [*record.notes, *result.notes]
        write_json(
            run.hidden(self.source, ".json"), {"fingerprint": self.fingerprint, "record": asdict(record)}
        )
        return record

    def _predict(self, run: _PredictionRun, advance: Callable[[int], None]) -> SceneOutput:
        look, grid = self.look, self.grid
        assert look is not None
        assert grid is not None
        checkpoint = SceneProgress(run.hidden(self.source, ".partial"), self.fingerprint)
        product = _product(run, self.record.name, look, grid, checkpoint.folder)
        try:
            notes = check_registration(look) if len(look.views) > 1 else []
            if run.model.task.matches_dates:
                look = match_view_radiometry(look)
            predict_tiles(run.model, look, grid, product, checkpoint, run.runtime, advance)
            result = product.finish()
        finally:
            product.close()
        shutil.rmtree(checkpoint.folder)
        result.notes += notes
        return result


def _product(run: _PredictionRun, name: str, look: ModelView, grid: TileGrid, folder: Path) -> OutputWriter:
    """The writer for the output of the model's task."""
    model, options = run.model, run.options
    tags = {
        "TIFFTAG_SOFTWARE": f"Swath {__version__}",
        "MODEL": model.id,
        "TASK": model.kind,
        "TILE": f"{options.tile} pixels, {options.overlap:g} overlapping",
        "LOOKED_AT": f"{look.gsd:.6g}" + ("" if model.contract.gsd_mode == "relative" else " m per pixel"),
    }
    target = OutputTarget(run.out, name, tags)
    return find_writer(model, options).build(WriterInputs(model, options, look, grid, target, folder))


def _identity(model: TaskModel) -> str:
    """What tells this model from any other: its id, or, of one never saved, all that it is made of."""
    if not model.id.endswith("-unsaved"):
        return model.id
    said = [model.kind, model.contract.to_dict(), model.task.config.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, value in sorted(model.task.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"{model.id}-{digest.hexdigest()}"


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    """The record of a finished scene; empty where there is none that can be read."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write_report(run: _PredictionRun, report: PredictReport) -> None:
    model = run.model
    write_json(
        report.path,
        {
            "swath": __version__,
            "model": {"id": model.id, "task": model.kind, "classes": model.classes},
            "options": run.options.to_dict(),
            "done": report.count("done"),
            "present": report.count("present"),
            "failed": report.count("failed"),
            "scenes": [asdict(scene) for scene in report.scenes],
        },
    )
