"""Data sets in the layouts that people have: class folders, CSV manifests, plain folders, archives of scenes.

Every data set is map-style (``dataset[i]`` is a sample, see `swath.datasets.protocol`), cheap to send to
loader workers, and deterministic: a sample depends on (seed, epoch, index) only. Files are judged once, by
their headers, when the data set is made: what cannot be used is left out, counted and explained in
``dataset.problems``; nothing is ever replaced by zeros. `open_dataset` finds out which layout a path has.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from swath.datasets.hdf5 import Hdf5Images, is_hdf5
from swath.datasets.image_files import Gsd, ImageFileDataset
from swath.datasets.protocol import ImageDataset, Problem, Sample, collate
from swath.errors import ImageryError, suggest
from swath.rasters.pillow_reader import IMAGE_SUFFIXES
from swath.rasters.read import read_header
from swath.rasters.remote import is_remote
from swath.rasters.safe_open import sniff_driver
from swath.sensors.sensor import Sensor

__all__ = [
    "ClassFolder",
    "CsvManifest",
    "ImageDataset",
    "ImageFileDataset",
    "Sample",
    "UnlabeledFolderDataset",
    "collate",
    "find_images",
    "open_dataset",
]


class ClassFolder(ImageFileDataset):
    """One sub-folder a class, images in it (also deeper); the layout of ImageNet, RSSCN7, EuroSAT, ...

    Args:
        root: Folder of the class folders.
        sensor: What the images were taken with.
        gsd: As in `ImageFileDataset`.
        classes: Class names in the order of their indices; default: the sub-folders, sorted.
        options: As in `ImageFileDataset`.
    """

    def __init__(
        self,
        root: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd = None,
        *,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        root = _folder(root)
        found = {path.name: sorted(find_images(path)) for path in sorted(root.iterdir()) if path.is_dir()}
        found = {name: files for name, files in found.items() if files and not name.startswith(".")}
        if not found:
            raise ImageryError(
                f"{root}: no images in sub-folders (one a class) with a suffix of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        names = list(classes) if classes is not None else sorted(found)
        unknown = sorted(set(found) - set(names))
        if unknown:
            raise ImageryError(
                f"{root / unknown[0]}: is not one of the classes given.{suggest(unknown[0], names)}"
            )
        paths = [path for name in names for path in found.get(name, [])]
        labels = [label for label, name in enumerate(names) for _ in found.get(name, [])]
        super().__init__(paths, sensor=sensor, gsd=gsd, labels=labels, classes=names, **options)


class UnlabeledFolderDataset(ImageFileDataset):
    """All images below a folder (or one image), without labels."""

    def __init__(
        self,
        root: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd = None,
        **options: Any,
    ) -> None:
        root = Path(root)
        paths = [root] if root.is_file() else sorted(find_images(_folder(root)))
        if not paths:
            raise ImageryError(f"{root}: no images with a suffix of {', '.join(sorted(IMAGE_SUFFIXES))}")
        super().__init__(paths, sensor=sensor, gsd=gsd, **options)


class CsvManifest(ImageFileDataset):
    """Images listed in a CSV table with a header row.

    Args:
        path: The table.
        sensor: What the images were taken with.
        gsd: A column's name, or as in `ImageFileDataset`; default: the column ``gsd_m`` or ``gsd`` if there
        is one.
        root: Folder that the file column is relative to; default: the table's own.
        file: Column of file names.
        label: Column of class names; None for no labels. The default is used only if there is such a column.
            Several columns: each a label that an image has (1) or has not (0).
        separator: One column that holds several labels with this between, such as ``|``; an image then may
            have any number of them, none included.
        fold: Keep the rows whose column ``fold`` (or ``split``) has this value.
        where: Keep the rows whose columns have these values: ``{"scale": "0"}`` or ``{"scale": ["0", "1"]}``.
        options: As in `ImageFileDataset`.

    Attributes:
        columns: Every column of the table for the images kept: name -> list of strings, as `paths`.

    Classes are those of the whole table, sorted, so that all folds agree on their indices.
    """

    def __init__(
        self,
        path: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd | str = None,
        *,
        root: str | Path | None = None,
        file: str = "file",
        label: str | Sequence[str] | None = "class",
        separator: str | None = None,
        fold: str | None = None,
        where: Mapping[str, str | Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        path = Path(path)
        header, rows = read_csv(path)
        if file not in header:
            raise ImageryError(f"{path}: has no column {file!r} of file names.{suggest(file, header)}")
        if label == "class" and label not in header:
            label = None
        wanted = dict(where or {})
        if fold is not None:
            wanted["fold" if "fold" in header or "split" not in header else "split"] = fold
        columns = [label] if isinstance(label, str) else list(label or [])
        for column in [*wanted, *columns]:
            if column not in header:
                raise ImageryError(f"{path}: has no column {column!r}.{suggest(column, header)}")
        if isinstance(gsd, str) and gsd != "relative" and gsd not in header:
            raise ImageryError(f"{path}: has no column {gsd!r} of GSDs.{suggest(gsd, header)}")
        if gsd is None:
            gsd = next((column for column in ("gsd_m", "gsd") if column in header), None)

        reader = None if not columns else _labels_of(path, rows, columns, separator, isinstance(label, str))
        chosen = [(line, row) for line, row in rows if _matches(row, wanted)]
        if not chosen:
            values = {column: sorted({row[column] for _, row in rows})[:12] for column in wanted}
            raise ImageryError(f"{path}: no row has {wanted}; there are {values}")
        base = Path(root) if root is not None else path.parent
        entries, problems = _without_duplicates(path, base, chosen, file, columns)
        native = _numbers(path, entries, gsd) if isinstance(gsd, str) and gsd != "relative" else gsd
        super().__init__(
            [name for name, _, _ in entries],
            sensor=sensor,
            gsd=native,  # type: ignore[arg-type]
            labels=None if reader is None else [reader.of(line, row) for _, line, row in entries],
            classes=None if reader is None else reader.classes,
            problems=problems,
            **options,
        )
        by_name = {name: row for name, _, row in entries}
        self.columns = {column: [by_name[name][column] for name in self.paths] for column in header}


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise ImageryError(
            f"{root}: is not a folder" if root.exists() else f"{root}: there is no such folder"
        )
    return root


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and (line number, row) of a table."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise ImageryError(
                        f"{path}, line {reader.line_num}: not {len(header)} values like the header"
                    )
                rows.append((reader.line_num, row))
    except OSError as error:
        raise ImageryError(f"{path}: cannot be opened ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageryError(f"{path}: is not a CSV table in UTF-8 ({error})") from None
    if len(set(header)) != len(header):
        raise ImageryError(f"{path}: a column name occurs twice in the header {header}")
    if not rows:
        raise ImageryError(f"{path}: has no rows")
    return header, rows


def _matches(row: Mapping[str, str], wanted: Mapping[str, str | Sequence[str]]) -> bool:
    return all(
        row[column] == str(value) if isinstance(value, str | int | float) else row[column] in map(str, value)
        for column, value in wanted.items()
    )


class _Labels:
    """How a row's labels are read.

    Attributes:
        classes: Of the whole table, sorted (or, of several columns, as they were named).
    """

    def __init__(self, path: Path, classes: list[str], read: Callable[[dict[str, str]], Any]) -> None:
        self.path, self.classes, self._read = path, classes, read

    def of(self, line: int, row: dict[str, str]) -> Any:
        """A class index, or K numbers of 0 and 1."""
        try:
            return self._read(row)
        except ValueError as error:
            raise ImageryError(f"{self.path}, line {line}: {error}") from None


def _labels_of(
    path: Path,
    rows: list[tuple[int, dict[str, str]]],
    columns: list[str],
    separator: str | None,
    one: bool,
) -> _Labels:
    """By a column of classes, a column of several labels with a separator, or a column a label."""
    if separator is not None and (not one or not separator):
        raise ImageryError(f"{path}: separator={separator!r} belongs to one column that holds several labels")
    if one and separator is None:
        classes = sorted({row[columns[0]] for _, row in rows})
        index = {name: i for i, name in enumerate(classes)}
        return _Labels(path, classes, lambda row: index[row[columns[0]]])
    if one:

        def parts(row: dict[str, str]) -> set[str]:
            return {part.strip() for part in row[columns[0]].split(separator)} - {""}

        classes = sorted(set().union(*(parts(row) for _, row in rows)))
        return _Labels(path, classes, lambda row: [float(name in parts(row)) for name in classes])

    def flag(row: dict[str, str], column: str) -> float:
        values = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
        text = row[column].strip().lower().removesuffix(".0")
        if text not in values:
            raise ValueError(f"{column} is {row[column]!r}; of a column a label, 0 or 1 is wanted")
        return values[text]

    return _Labels(path, columns, lambda row: [flag(row, column) for column in columns])


def _without_duplicates(
    path: Path, base: Path, rows: list[tuple[int, dict[str, str]]], file: str, labels: list[str]
) -> tuple[list[tuple[str, int, dict[str, str]]], list[Problem]]:
    """(file, line, row) with each file once; a repeated line is a problem, a contradicting one an error."""
    seen: dict[str, tuple[int, dict[str, str]]] = {}
    problems: list[Problem] = []
    for line, row in rows:
        name = os.path.normpath(base / row[file])
        if name not in seen:
            seen[name] = (line, row)
            continue
        first_line, first = seen[name]
        differs = next((label for label in labels if first[label] != row[label]), None)
        if differs is not None:
            raise ImageryError(
                f"{path}: lines {first_line} and {line} give {row[file]} two classes, {first[differs]!r} and "
                f"{row[differs]!r}; keep one of them"
            )
        problems.append((name, f"{path}, line {line}: {row[file]} is listed in line {first_line} already"))
    return [(name, line, row) for name, (line, row) in seen.items()], problems


def _numbers(path: Path, entries: list[tuple[str, int, dict[str, str]]], column: str) -> list[float]:
    values = []
    for _, line, row in entries:
        try:
            values.append(float(row[column]))
        except ValueError:
            raise ImageryError(f"{path}, line {line}: {column} is {row[column]!r}, not a number") from None
    return values


Layout = Literal["auto", "chips", "class_folder", "csv", "hdf5", "images"]
_LAYOUTS = ("auto", "chips", "class_folder", "csv", "hdf5", "images")

# Which options of `open_dataset` have a meaning in which layout; any other is refused, not passed over.
_WHOLE = {"size", "fit", "cache", "max_pixels", "offset_dn", "workers"}
_OPTIONS = {
    "images": _WHOLE,
    "class_folder": _WHOLE | {"classes"},
    "hdf5": _WHOLE | {"group", "label"},
    "csv": _WHOLE | {"root", "file", "label", "separator", "fold", "where"},
    "chips": {
        "sampling", "chip_size", "chip_metres", "stride", "chips_per_epoch", "min_valid", "align",
        "offset_dn", "pattern", "workers", "remote",
    },
}  # fmt: skip
_ONLY_CHIPS = _OPTIONS["chips"] - _WHOLE


def open_dataset(
    path: str | Path,
    *,
    sensor: str | Path | Sensor,
    gsd: Gsd | str = None,
    layout: Layout = "auto",
    seed: int = 0,
    **options: Any,
) -> ImageDataset:
    """Open imagery in any layout.

    Args:
        path: A folder, a CSV table, a catalogue (``.parquet``), a STAC file (JSON or stac-geoparquet), an
            HDF5 file, one image, or the URL of a GeoTIFF.
        sensor: What the imagery was taken with: a registered name, a YAML path or a `Sensor`.
        gsd: Metres per pixel, ``"relative"``, a column of the CSV table, or None for what the files say.
        layout: ``auto`` decides by what is there: a CSV table is a manifest; a catalogue, a STAC file and
            georeferenced TIFFs are scenes for chips, and so are others where an option of chips is given;
            otherwise images are ``class_folder`` where they lie in sub-folders and ``images`` (no labels)
            where they do not. HDF5 files, one or a folder of them, are ``hdf5``.
        seed: Seed of all random decisions.
        **options: Of the layout; None counts as not given.

            - whole images (``class_folder``, ``csv``, ``images``): size, fit, cache, max_pixels, offset_dn,
              workers (see `ImageFileDataset`); ``class_folder``: classes; ``csv``: root, file, label,
              separator, fold, where (see `CsvManifest`)
            - ``hdf5``: those of whole images, and group, label (see `swath.datasets.hdf5`)
            - ``chips``: sampling (``"grid"``, the default, or ``"random"``), chip_size, chip_metres,
              stride, chips_per_epoch, min_valid, align, offset_dn, pattern, workers, remote (see
              `swath.datasets.chips`)

    Raises:
        ImageryError: Nothing usable at `path`, or options that do not belong to the layout.
    """
    url = os.fspath(path) if is_remote(path) else None
    path = Path(path)
    if url is None and not path.exists():
        raise ImageryError(f"{path}: there is no such file or folder")
    if url is not None and layout not in ("auto", "chips"):
        raise ImageryError(
            f"{url}: layout={layout!r} is for local files; a GeoTIFF elsewhere is cut into chips"
        )
    if layout not in _LAYOUTS:
        raise ImageryError(f"layout={layout!r}:{suggest(str(layout), list(_LAYOUTS))}")
    kind = "chips" if url else detect_layout(path) if layout == "auto" else layout
    given = {name: value for name, value in options.items() if value is not None}
    if layout == "auto" and kind in ("images", "class_folder") and _ONLY_CHIPS & set(given):
        kind = "chips"  # who asks for chips of images without georeference shall have them
    if given.get("cache") == "none" and "cache" not in _OPTIONS[kind]:
        del given["cache"]  # true of a layout that never holds its images
    for name in given:
        if name not in _OPTIONS[kind]:
            known = sorted(set().union(*_OPTIONS.values()))
            if name not in known:
                raise ImageryError(f"open_dataset: unknown option {name!r}.{suggest(name, known)}")
            homes = [home for home, names in _OPTIONS.items() if name in names]
            raise ImageryError(
                f"{path}: was opened with layout={kind!r}, where {name}={given[name]!r} means nothing; "
                f"it belongs to layout={' or '.join(map(repr, homes))}"
            )
    if kind == "csv":
        return CsvManifest(path, sensor, gsd, seed=seed, **given)
    if isinstance(gsd, str) and gsd != "relative":
        raise ImageryError(f"gsd={gsd!r} is neither a number nor 'relative'")
    if kind == "hdf5":
        return Hdf5Images(path, sensor, gsd, seed=seed, **given)  # type: ignore[arg-type]
    if kind == "class_folder":
        return ClassFolder(path, sensor, gsd, seed=seed, **given)  # type: ignore[arg-type]
    if kind == "images":
        return UnlabeledFolderDataset(path, sensor, gsd, seed=seed, **given)  # type: ignore[arg-type]
    from swath.datasets.chips import open_chips

    return open_chips(url or path, sensor=sensor, gsd=gsd, seed=seed, **given)  # type: ignore[arg-type]


def detect_layout(path: Path) -> Literal["chips", "class_folder", "csv", "hdf5", "images"]:
    """What `layout="auto"` takes `path` for (see `open_dataset`)."""
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return "csv"
        if path.suffix.lower() in (".parquet", ".geoparquet", ".json", ".geojson"):
            return "chips"
        if is_hdf5(path):
            return "hdf5"
        return "chips" if sniff_driver(path) == "GTiff" else "images"
    if any((path / name).is_file() for name in ("catalog.json", "collection.json")):
        return "chips"
    kinds: list[str] = []
    for image in find_images(path):
        try:
            if sniff_driver(image) == "GTiff" and read_header(image).crs is not None:
                return "chips"
        except ImageryError:
            continue  # this file tells nothing; the data set itself will report it
        kinds.append("class_folder" if image.parent != path else "images")
        if len(kinds) >= 16:  # a few files tell the layout; a million need not be looked at
            break
    if not kinds and any(is_hdf5(file) for file in path.iterdir()):
        return "hdf5"
    if not kinds:
        raise ImageryError(
            f"{path}: no readable image in it or below it (suffixes: {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return "images" if "images" in kinds else "class_folder"


def find_images(root: Path) -> Iterator[Path]:
    """Files below `root` with an image suffix; hidden files and folders are passed over."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(folder, name)
