"""Images listed in a CSV table, with labels and splits."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swath.datasets.image_files import Gsd, ImageFileDataset
from swath.errors import ImageryError, Problem, suggest
from swath.rasters.sensor_scene import OVERRIDE
from swath.sensors.sensor import Sensor


class CsvManifest(ImageFileDataset):
    """Images listed in a CSV table with a header row.

    Args:
        path: The table.
        sensor: What the images were taken with.
        gsd: A column's name, or as in `ImageFileDataset`; default: the column ``gsd_m`` or ``gsd`` if there
            is one.
        image_root: Folder that the file column is relative to; default: the table's own.
        file_column: Column of file names.
        label_column: Column of class names; None for no labels. The default is used only if there is such a
            column. Several columns: each a label that an image has (1) or has not (0).
        label_separator: One column that holds several labels with this between, such as ``|``; an image then
            may have any number of them, none included.
        split: Keep the rows whose column ``split`` (or ``split``) has this value.
        filter: Keep the rows whose columns have these values: ``{"scale": "0"}`` or ``{"scale":
            ["0", "1"]}``.
        options: As in `ImageFileDataset`.

    Attributes:
        columns: Every column of the table for the images kept: name -> list of strings, as `paths`.

    Classes are those of the whole table, sorted, so that all splits agree on their indices.
    """

    def __init__(
        self,
        path: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd | str = None,
        *,
        image_root: str | Path | None = None,
        file_column: str = "file",
        label_column: str | Sequence[str] | None = "class",
        label_separator: str | None = None,
        split: str | None = None,
        filter: Mapping[str, str | Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        path = Path(path)
        header, rows = read_csv(path)
        if file_column not in header:
            raise ImageryError(
                f"{path}: has no column {file_column!r} of file names.{suggest(file_column, header)}"
            )
        if label_column == "class" and label_column not in header:
            label_column = None
        wanted = dict(filter or {})
        if split is not None:
            wanted["fold" if "fold" in header and "split" not in header else "split"] = split
        columns = [label_column] if isinstance(label_column, str) else list(label_column or [])
        for column in [*wanted, *columns]:
            if column not in header:
                raise ImageryError(f"{path}: has no column {column!r}.{suggest(column, header)}")
        if gsd is None:
            gsd = next((column for column in ("gsd_m", "gsd") if column in header), None)
        by_column = isinstance(gsd, str) and gsd != "relative" and not gsd.startswith(OVERRIDE)
        if by_column and gsd not in header:
            raise ImageryError(f"{path}: has no column {gsd!r} of GSDs.{suggest(str(gsd), header)}")

        reader = (
            None
            if not columns
            else _labels_of(path, rows, columns, label_separator, isinstance(label_column, str))
        )
        chosen = [(line, row) for line, row in rows if _matches(row, wanted)]
        if not chosen:
            values = {column: sorted({row[column] for _, row in rows})[:12] for column in wanted}
            raise ImageryError(f"{path}: no row has {wanted}; there are {values}")
        base = Path(image_root) if image_root is not None else path.parent
        entries, problems = _without_duplicates(path, base, chosen, file_column, columns)
        native = _numbers(path, entries, str(gsd)) if by_column else gsd
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
