"""Boxes as people store them: COCO, YOLO, DOTA and PASCAL VOC, read into one form.

What a file says is taken as it stands; whether the boxes make sense in their images is judged afterwards
(`swath.tasks.detection.data.dataset`), because only then the images' sizes are known.

- COCO: one JSON file; ``bbox`` is [left, top, width, height]. Images lie beside it or in ``images/``.
- YOLO: ``labels/**/*.txt`` beside ``images/**`` (or both in one folder), lines ``class cx cy w h`` or,
  oriented, ``class x1 y1 ... x4 y4``, as shares of the image; class names in ``data.yaml`` or
  ``classes.txt``. An image without a file has no boxes; a file without an image is listed as a problem.
- DOTA: ``labelTxt/*.txt`` beside ``images/`` (or both in one folder), lines ``x1 y1 ... x4 y4 class
  difficult`` after optional ``imagesource:`` and ``gsd:`` lines.
- VOC: ``*.xml``, anywhere below the folder, with ``<bndbox>``; its numbers are taken for the box's edges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from swath.datasets.folders import find_images
from swath.errors import ImageryError, Problem, suggest

Layout = Literal["auto", "coco", "yolo", "dota", "voc"]
LAYOUTS = ("auto", "coco", "yolo", "dota", "voc")
MAX_XML = 16 * 2**20  # bytes


@dataclass(slots=True)
class ImageBoxes:
    """The boxes of one image, as its file states them.

    Attributes:
        path: Of the image.
        boxes: One a box: upright ones as [4] (left, top, right, bottom), oriented ones as corners [4, 2].
        labels: Names of their classes.
        where: Where each of them is written, for messages.
        difficult: Marked as difficult (or, in COCO, as a crowd): neither learned nor counted.
        crowd: Marked by COCO as a crowd (``iscrowd``): a region of many objects that nobody has told apart.
        relative: Coordinates are shares of the image's size rather than pixels.
        fields: What else the file says about the image, such as ``site`` or ``gsd``.
    """

    path: Path
    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    relative: bool = False
    fields: dict[str, Any] = field(default_factory=dict)

    def add(
        self, box: Sequence[float], label: str, where: str, *, difficult: bool = False, crowd: bool = False
    ) -> None:
        """One more box: four numbers, or the eight of four corners."""
        array = np.array(box, dtype=np.float64)
        self.boxes.append(array if len(array) == 4 else array.reshape(4, 2))
        self.labels.append(label)
        self.where.append(where)
        self.difficult.append(difficult or crowd)
        self.crowd.append(crowd)


@dataclass(slots=True)
class Annotations:
    """All images of a data set, the classes that its files name (in their order), and what was left out."""

    images: list[ImageBoxes]
    classes: list[str]
    problems: list[Problem] = field(default_factory=list)


def read_annotations(
    path: str | Path, *, layout: Layout = "auto", images: str | Path | None = None
) -> Annotations:
    """Read the annotations at `path`.

    Args:
        path: COCO's file, or the folder of another layout.
        layout: Which; "auto" decides by what is there.
        images: Folder of the images, where it is not the layout's own.

    Raises:
        ImageryError: Nothing there, or a file that is not what it should be; the message names file and line.
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise ImageryError(f"layout={layout!r}:{suggest(str(layout), list(LAYOUTS))}")
    if not path.exists():
        raise ImageryError(f"{path}: there is no such file or folder")
    kind = detect_annotations(path) if layout == "auto" else layout
    found: Annotations = _READERS[kind](path, None if images is None else Path(images))
    if not found.images:
        first = f"; the first problem: {found.problems[0][1]}" if found.problems else ""
        raise ImageryError(f"{path}: no annotated image in layout {kind!r}{first}")
    return found


def detect_annotations(path: Path) -> str:
    """What ``layout="auto"`` takes `path` for."""
    if path.is_file() and path.suffix.lower() == ".json":
        return "coco"
    if path.is_dir():
        if (path / "data.yaml").is_file() or (path / "classes.txt").is_file():
            return "yolo"
        if (path / "labelTxt").is_dir():
            return "dota"
        if next(path.rglob("*.xml"), None) is not None:
            return "voc"
        jsons = sorted(path.glob("*.json"))
        if jsons:
            raise ImageryError(f"{path}: is a folder; for COCO name the file, such as {jsons[0]}")
    raise ImageryError(
        f"{path}: holds no boxes in a layout that is recognized (a COCO .json; YOLO's data.yaml or "
        "classes.txt; DOTA's labelTxt; VOC's .xml); say which with layout="
    )


# ------------------------------------------------------------------------------------------------------- COCO


def _coco(path: Path, images: Path | None) -> Annotations:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        classes = {c["id"]: str(c["name"]) for c in sorted(data["categories"], key=lambda c: c["id"])}
        folder = images or (path.parent / "images" if (path.parent / "images").is_dir() else path.parent)
        by_id = {}
        for entry in data["images"]:
            file, beside = folder / entry["file_name"], path.parent / entry["file_name"]
            if images is None and not file.exists() and beside.exists():
                file = beside
            rest = {k: v for k, v in entry.items() if k not in ("id", "file_name")}
            by_id[entry["id"]] = ImageBoxes(file, fields=rest)
        for number, entry in enumerate(data["annotations"]):
            where = f"{path.name}, annotation {entry.get('id', number)}"
            if entry["image_id"] not in by_id or entry["category_id"] not in classes:
                what = "image" if entry["image_id"] not in by_id else "category"
                raise ImageryError(
                    f"{path}: annotation {entry.get('id', number)} is of {what} "
                    f"{entry[what + '_id']!r}, which the file does not list; add it or remove the annotation"
                )
            x, y, w, h = (float(value) for value in entry["bbox"])
            by_id[entry["image_id"]].add(
                (x, y, x + w, y + h),
                classes[entry["category_id"]],
                where,
                crowd=bool(entry.get("iscrowd", 0)),
            )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ImageryError(f"{path}: is not a JSON file ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageryError(
            f"{path}: is not COCO's format ({type(error).__name__}: {error}); it needs images (id, "
            "file_name), categories (id, name) and annotations (image_id, category_id, bbox of four numbers)"
        ) from None
    return Annotations(list(by_id.values()), list(classes.values()))


# ----------------------------------------------------------------------------------------------- text layouts


def _yolo(path: Path, images: Path | None) -> Annotations:
    classes = _yolo_classes(path)
    folder = images or (path / "images" if (path / "images").is_dir() else path)
    labels = path / "labels" if (path / "labels").is_dir() else path
    result, read = [], set()
    for file in sorted(Path(name) for name in find_images(folder)):
        one = ImageBoxes(file, relative=True)
        text = (labels / file.relative_to(folder)).with_suffix(".txt")
        read.add(text)
        for where, words in _lines(text) if text.is_file() else ():
            numbers = _numbers(words[1:], where)
            if len(numbers) not in (4, 8) or not words[0].isdigit() or int(words[0]) >= len(classes):
                raise ImageryError(
                    f"{where}: 'class cx cy w h' or 'class x1 y1 ... x4 y4' is wanted, with a class below "
                    f"{len(classes)}, not {' '.join(words)!r}"
                )
            if len(numbers) == 4:
                cx, cy, w, h = numbers
                numbers = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            one.add(numbers, classes[int(words[0])], where)
        result.append(one)
    # In one folder with the images other text may lie beside them; in one of its own there are labels only.
    texts = (t for t in labels.rglob("*.txt") if t.name != "classes.txt") if labels != path else ()
    return Annotations(result, classes, _without_image(texts, read))


def _yolo_classes(path: Path) -> list[str]:
    if (path / "classes.txt").is_file():
        return [line.strip() for line in _text(path / "classes.txt").splitlines() if line.strip()]
    if not (path / "data.yaml").is_file():
        raise ImageryError(f"{path}: YOLO's class names are wanted in data.yaml (names:) or classes.txt")
    import yaml

    try:
        names = yaml.safe_load(_text(path / "data.yaml"))["names"]
        return [str(names[i]) for i in range(len(names))]  # a list, or a mapping 0: name, 1: name, ...
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ImageryError(f"{path / 'data.yaml'}: has no list 'names' of classes ({error})") from None


def _dota(path: Path, images: Path | None) -> Annotations:
    folder = images or (path / "images" if (path / "images").is_dir() else path)
    labels = path / "labelTxt" if (path / "labelTxt").is_dir() else path
    result, problems, names, read = [], [], set(), set()
    for file in sorted(Path(name) for name in find_images(folder)):
        text = labels / (file.stem + ".txt")
        read.add(text)
        if not text.is_file():
            problems.append((str(file), f"{file}: has no {text}; an image without objects has an empty one"))
            continue
        one = ImageBoxes(file)
        for where, words in _lines(text):
            key, _, value = words[0].partition(":")
            if key in ("imagesource", "gsd") and len(words) == 1:
                one.fields[key] = value
                continue
            if len(words) not in (9, 10):
                raise ImageryError(
                    f"{where}: 'x1 y1 x2 y2 x3 y3 x4 y4 class difficult' is wanted, not {' '.join(words)!r}"
                )
            names.add(words[8])
            one.add(_numbers(words[:8], where), words[8], where, difficult=words[9:] not in ([], ["0"]))
        result.append(one)
    problems += _without_image(labels.glob("*.txt") if labels != path else (), read)
    return Annotations(result, sorted(names), problems)


def _without_image(texts: Iterable[Path], read: Set[Path]) -> list[Problem]:
    """Annotations that nobody has read, because no image has their name."""
    return [
        (str(text), f"{text}: there is no image of that name") for text in sorted(texts) if text not in read
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageryError(f"{path}: cannot be read as text in UTF-8 ({error})") from None


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(where, words) of every line that is not empty."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line.split()


def _numbers(words: Sequence[str], where: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise ImageryError(f"{where}: {' '.join(words)!r} are not all numbers") from None


# -------------------------------------------------------------------------------------------------------- VOC


def _voc(path: Path, images: Path | None) -> Annotations:
    known: dict[str, Path] = {}
    for name in sorted(find_images(images or path)):
        known.setdefault(Path(name).stem, Path(name))
    result, problems, names = [], [], set()
    for file in sorted(path.rglob("*.xml")):
        root = parse_xml(file)
        image = known.get(file.stem)
        if image is None:
            problems.append((str(file), f"{file}: there is no image of that name"))
            continue
        one = ImageBoxes(image)
        for number, thing in enumerate(root.iter("object"), 1):
            where = f"{file}, object {number}"
            label = (thing.findtext("name") or "").strip()
            if not label:
                raise ImageryError(f"{where}: has no <name>")
            words = [thing.findtext(f"bndbox/{key}") or "" for key in ("xmin", "ymin", "xmax", "ymax")]
            names.add(label)
            difficult = (thing.findtext("difficult") or "0").strip() not in ("", "0")
            one.add(_numbers(words, where + ", <bndbox>"), label, where, difficult=difficult)
        result.append(one)
    return Annotations(result, sorted(names), problems)


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of a small XML file from anywhere.

    Files with a document type are refused: they can define entities that grow without bounds or name other
    files. So are files of more than `MAX_XML` bytes and those that are not UTF-8, in which one could hide.

    Raises:
        ImageryError: Refused, or no XML.
    """
    if path.stat().st_size > MAX_XML:
        raise ImageryError(f"{path}: {path.stat().st_size:,} bytes are more than an annotation can have")
    text = _text(path)
    if "<!" in text.replace("<!--", "").replace("<![CDATA[", ""):
        raise ImageryError(f"{path}: declares a document type or entities, which are not read; remove them")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ImageryError(f"{path}: is not XML ({error})") from None


_READERS: Mapping[str, Any] = {"coco": _coco, "yolo": _yolo, "dota": _dota, "voc": _voc}
