"""Suites as data: data sets, protocols, baselines and models of a comparison."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swath.errors import SwathError, suggest
from swath.evaluation.features.protocol import GsdMode
from swath.renames import current_names

_FOLDER = Path(__file__).parent


class _SuiteModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnnConfig(_SuiteModel):
    """See `swath.evaluation.protocols.frozen.evaluate_knn`."""

    k: int = Field(default=20, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    asymmetric: bool = True
    standardize: bool = True


class LinearProbeConfig(_SuiteModel):
    """See `swath.evaluation.protocols.frozen.evaluate_linear`."""

    c: float | None = Field(default=None, gt=0)
    scales: tuple[float, ...] = (100,)


class Protocols(_SuiteModel):
    """What is scored; at least one."""

    knn: KnnConfig | None = None
    linear: LinearProbeConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> Protocols:
        if self.knn is None and self.linear is None:
            raise ValueError("name at least one: knn, linear")
        return self


class PublishedScores(_SuiteModel):
    """Figures of others that stand beside ours."""

    source: str
    columns: tuple[str, ...] = Field(min_length=1)


class SuiteModel(_SuiteModel):
    """Something to score; a plain text stands for `model` alone."""

    model: str
    name: str | None = None
    pooling: str | None = None
    bands: tuple[str, ...] | None = None


class SuiteDataset(_SuiteModel):
    """A labeled set; a plain text stands for `data` alone.

    Attributes:
        data: A path (relative to the root, if it is there, or to here), a known set's name, or torchgeo:NAME.
        title: In tables; default `data`.
        scales: Percent of the side, instead of the suite's.
        size: Side that images are brought to first.
        sensor: For what has no sensor of its own; default: the known set's, else rgb_aerial.
        gsd: Metres per pixel or a column, where the data does not say.
        published: Figures of others in percent, one a column of the suite's `reference`.
        filter: CSV: keep the rows whose columns have these values.
        train_split: The split that scores are learned from. This and all that follow are handed to
            `swath.evaluation.data.opening.open_eval_data`, which says what they mean.
        test_split: The split that is scored.
    """

    data: str
    title: str | None = None
    scales: tuple[float, ...] | None = None
    size: int | None = Field(default=None, gt=0)
    sensor: str | None = None
    gsd: float | str | None = None
    published: tuple[float, ...] | None = None
    filter: dict[str, str | list[str]] | None = None
    train_split: str = "train"
    test_split: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    labels: Literal["multi", "single"] | None = None
    split_column: str | None = None
    group_column: str | None = None
    allow_overlap: bool = False
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    offset_dn: float | None = None

    @property
    def shown(self) -> str:
        """What it is called in tables."""
        return self.title or self.data

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return re.sub(r"[^a-z0-9]+", "-", self.shown.casefold()).strip("-") or "set"


class Suite(_SuiteModel):
    """Sets, protocols and baselines; see the module.

    Attributes:
        gsd_mode: How scale is given to models; None: as each model's contract says.
        scales: Percent of each set's side, rounded to the model's patch.
        baselines: Names of baselines; ``random`` is each model's own encoder untrained.
        seed: Of splits that have to be made.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    title: str = ""
    description: str = ""
    gsd_mode: GsdMode | None = None
    scales: tuple[float, ...] = (12.5, 25, 50, 100)
    protocols: Protocols = Protocols(knn=KnnConfig())
    baselines: tuple[str, ...] = ("statistics", "rcf", "random")
    published: PublishedScores | None = None
    seed: int = 0
    datasets: tuple[SuiteDataset, ...] = Field(min_length=1)
    models: tuple[SuiteModel, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _plain_texts(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = dict(data)
            for key, inner in (("datasets", "data"), ("models", "model")):
                if isinstance(data.get(key), list):
                    data[key] = [{inner: item} if isinstance(item, str) else item for item in data[key]]
            if isinstance(data.get("protocols"), dict):
                data["protocols"] = {k: {} if v is None else v for k, v in data["protocols"].items()}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        from swath.evaluation.features.baselines import BASELINES

        for scales in (self.scales, *(one.scales for one in self.datasets if one.scales)):
            if not scales or any(not 0 < scale <= 400 for scale in scales):
                raise ValueError(f"scales are percents of the side, such as 12.5 or 100, not {list(scales)}")
        folders = [one.folder for one in self.datasets]
        duplicates = sorted({one.shown for one in self.datasets if folders.count(one.folder) > 1})
        if duplicates:
            raise ValueError(f"sets need titles that differ: {', '.join(duplicates)}")
        for name in self.baselines:
            if name != "random" and name not in BASELINES:
                raise ValueError(f"no baseline {name!r}.{suggest(name, [*BASELINES, 'random'])}")
        columns = len(self.published.columns) if self.published else 0
        for one in self.datasets:
            if one.published is not None and len(one.published) != columns:
                raise ValueError(
                    f"{one.shown}: reference has {len(one.published)} figures for {columns} columns"
                )
        return self


def list_suites() -> list[str]:
    """Names of the ready ones."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def get_suite(name: str | Path) -> Suite:
    """A ready suite by its name, or one in a YAML file.

    Raises:
        SwathError: None such, or a file with wrong keys; each is named.
    """
    import yaml

    path = Path(name)
    if not path.is_file():
        ready = _FOLDER / f"{name}.yaml"
        if path.suffix in (".yaml", ".yml") or not ready.is_file():
            raise SwathError(
                f"{name}: there is no such suite file, and none is called so."
                f"{suggest(str(name), list_suites())}"
            )
        path = ready
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Suite.model_validate(
            current_names(data, "suite", str(path)) if isinstance(data, dict) else data
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SwathError(f"{path}: cannot be read as YAML ({error})") from None
    except ValidationError as error:
        wrong = "\n".join(
            f"  {'.'.join(map(str, p['loc'])) or 'suite'}: {p['msg'].removeprefix('Value error, ')}"
            for p in error.errors()
        )
        raise SwathError(f"{path}: not a valid suite:\n{wrong}") from None
