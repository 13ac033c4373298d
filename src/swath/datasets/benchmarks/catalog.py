"""Labeled data sets that people know by name: what they hold, how they lie on disk, where they come from.

One YAML file a set, beside this one. Nothing is downloaded here (see `swath.datasets.download.http`); a set
is found in the folder that the user names, in any of the layouts in which people have it:

    known = get_known_set("NWPU-RESISC45")
    found = known.find("data/")           # FoundSet: its class folders, and lists of a split beside them
    found.folder, found.classes, found.lists

Facts that nobody publishes are left out rather than guessed: a checksum that is not known is not there.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swath.errors import ImageryError, suggest
from swath.rasters.pillow_reader import IMAGE_SUFFIXES

__all__ = [
    "BenchmarkDataset",
    "DatasetDownload",
    "LocalBenchmark",
    "get_benchmark",
    "is_benchmark",
    "list_benchmarks",
]

_DEPTH, _FOLDERS = 7, 5000  # how far, and through how many folders, a set is looked for
_SPLITS = ("train", "val", "validation", "test")


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetDownload(_Facts):
    """A file that the set is published as.

    Attributes:
        name: Of the file, as people have it.
        url: From where a program may fetch it; None where only a person can (a log-in, a form).
        md5, sha256: Checksums, where somebody has published them.
        checksum_source: Who.
    """

    name: str
    url: str | None = None
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    checksum_source: str | None = None


class DatasetReference(_Facts):
    """A page that says more: the authors' own first."""

    title: str
    url: str


class SplitConvention(_Facts):
    """How the set is usually divided.

    Attributes:
        test_fraction: Share of queries where no list lies beside the images.
        lists: Split -> file with a file name a line, as others distribute it.
        note: Where both come from.
    """

    test_fraction: float = Field(gt=0, lt=1)
    lists: dict[str, str] = {}
    note: str


class BenchmarkDataset(_Facts):
    """What is known of a data set.

    Attributes:
        name: What Swath calls it.
        title: In full.
        aliases: Other names that people use.
        description: Traps, and what is worth knowing.
        classes: Names of the class folders.
        classes_note: Where they are from, if not from the files themselves.
        class_aliases: Class folders as some copies spell them -> class, beyond case and separators.
        images: How many there are.
        image_size: Side in pixels that (most) images have; all are brought to it.
        gsd: Metres per pixel, where it is one for all.
        gsd_range: Smallest and largest, where it varies from image to image and no file says how. Neither:
            not even that is known.
        sensor: What images are opened with.
        offset_dn: See `swath.sensors.sentinel2_offset`.
        suffixes: Of the image files; tells variants of a set apart.
        folders: Below the folder that holds the set: where the class folders may lie, most common first.
        downloads: Files that it is published as.
        references: Pages.
        paper: Which to cite.
        license: Of the data, as far as it is stated.
        split: The usual one.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    description: str
    classes: tuple[str, ...] = Field(min_length=2)
    classes_note: str | None = None
    class_aliases: dict[str, str] = {}
    images: int
    image_size: int
    gsd: float | None = None
    gsd_range: tuple[float, float] | None = None
    sensor: str = "rgb_aerial"
    offset_dn: float | None = None
    suffixes: tuple[str, ...] = ()
    folders: tuple[str, ...]
    downloads: tuple[DatasetDownload, ...] = ()
    references: tuple[DatasetReference, ...] = Field(min_length=1)
    paper: str
    license: str
    split: SplitConvention

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is called."""
        return (self.name, *self.aliases)

    @property
    def assumed_gsd(self) -> float | None:
        """Its GSD, or the geometric mean of the smallest and the largest where it varies; None if unknown."""
        if self.gsd is not None or self.gsd_range is None:
            return self.gsd
        return math.sqrt(self.gsd_range[0] * self.gsd_range[1])

    def find(self, root: str | Path) -> LocalBenchmark:
        """Where the set lies at or below `root`.

        Raises:
            ImageryError: It is not there; says from where it can be had, and what to do.
        """
        root = Path(root)
        if not root.is_dir():
            raise ImageryError(f"{root}: there is no such folder. {self.how_to_get(root)}")
        for base, folder in self._likely(root):
            found = self._at(base / folder, root, partial=True)
            if found is not None:
                return found
        for path in _folders(root):
            found = self._at(path, root, partial=False)
            if found is not None:
                return found
        raise ImageryError(f"{root}: {self.title} is not in it. {self.how_to_get(root)}")

    def how_to_get(self, root: str | Path) -> str:
        """What to do to have the set, in a sentence or two."""
        fetchable = next((archive for archive in self.downloads if archive.url), None)
        if fetchable is not None:
            return f"Get it with: swath datasets fetch {self.name} --out {root} ({fetchable.url})"
        page = self.references[0]
        files = " or ".join(archive.name for archive in self.downloads) or "its archive"
        return (
            f"Its authors publish it at {page.url} ({page.title}). Download {files} there, then unpack it "
            f"with: swath datasets fetch {self.name} --url FILE --out {root}"
        )

    def class_of(self, folder: str) -> str | None:
        """The class whose folder is called so, however it is spelled; None where none is."""
        plain = _plain(folder)
        known = {_plain(name): name for name in self.classes}
        return known.get(plain) or {_plain(name): to for name, to in self.class_aliases.items()}.get(plain)

    def _likely(self, root: Path) -> Iterator[tuple[Path, str]]:
        """Folders that are called as those of this set are; the root itself, named by the user, is one."""
        called = {_plain(name) for name in self.names}
        called |= {_plain(Path(archive.name).stem) for archive in self.downloads}
        bases = [root, *(path for path in _children(root) if _plain(path.name) in called)]
        for base in bases:
            for folder in (*self.folders, "."):
                yield base, folder

    def _at(self, path: Path, root: Path, *, partial: bool) -> LocalBenchmark | None:
        """The set, if `path` holds its class folders, or train and test folders of them."""
        if not path.is_dir():
            return None
        splits = [name for name in _SPLITS if (path / name).is_dir()]
        if "train" in splits and len(splits) > 1:
            classes = self._classes_in(path / "train", partial)
            return None if classes is None else LocalBenchmark(self, path, classes, has_splits=True)
        classes = self._classes_in(path, partial)
        if classes is None:
            return None
        return LocalBenchmark(self, path, classes, lists=self._lists(path, root))

    def _classes_in(self, path: Path, partial: bool) -> dict[str, str] | None:
        """Folder -> class, if all folders with images are classes of this set."""
        found: dict[str, str] = {}
        for child in _children(path):
            kind = _first_suffix(child)
            if kind is None:
                continue
            name = self.class_of(child.name)
            if name is None or (self.suffixes and kind not in self.suffixes):
                return None
            found[child.name] = name
        enough = 2 if partial else len(self.classes)
        return found if len(found) >= enough else None

    def _lists(self, path: Path, root: Path) -> dict[str, Path]:
        """Lists of a split beside the class folders, or anywhere between them and the root."""
        above = [folder for folder in (path, *path.parents) if folder == root or root in folder.parents]
        for folder in above:
            there = {split: folder / name for split, name in self.split.lists.items()}
            if there and all(file.is_file() for file in there.values()):
                return there
        return {}


@dataclass(frozen=True, slots=True)
class LocalBenchmark:
    """A known set on disk.

    Attributes:
        benchmark: What is known of it.
        folder: Of its class folders, or of train and test folders with class folders.
        folders: Name of a folder -> class.
        has_splits: Whether `folder` holds train and val or test folders.
        lists: Split -> list of its files, where such lists lie there.
    """

    benchmark: BenchmarkDataset
    folder: Path
    folders: dict[str, str]
    has_splits: bool = False
    lists: dict[str, Path] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What of the set is not there."""
        missing = [name for name in self.benchmark.classes if name not in self.folders.values()]
        if not missing:
            return []
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        total = len(self.benchmark.classes)
        return [f"not the whole set: {total - len(missing)} of its {total} classes are here, without {shown}"]


def list_benchmarks() -> list[str]:
    """Names of all sets."""
    return sorted(_all())


def is_benchmark(name: str) -> bool:
    """Whether a set is called so."""
    return _plain(name) in _by_name()


def get_benchmark(name: str) -> BenchmarkDataset:
    """The set that is called so, by any of its names; case, spaces and hyphens do not matter.

    Raises:
        ImageryError: None is; suggests the nearest.
    """
    found = _by_name().get(_plain(name))
    if found is None:
        raise ImageryError(f"no data set is known as {name!r}.{suggest(name, list_benchmarks())}")
    return _all()[found]


def read_benchmark(path: Path) -> BenchmarkDataset:
    """Read and check one YAML file.

    Raises:
        ImageryError: With the file and each wrong key.
    """
    import yaml

    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        known = BenchmarkDataset.model_validate(data)
    except (OSError, yaml.YAMLError) as error:
        raise ImageryError(f"{path}: cannot be read ({error})") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise ImageryError(f"{path}: {'; '.join(wrong)}") from None
    if known.gsd is not None and known.gsd_range is not None:
        raise ImageryError(f"{path}: gsd or gsd_range is wanted, not both")
    strangers = set(known.class_aliases.values()) - set(known.classes)
    if strangers:
        raise ImageryError(f"{path}: spellings lead to {', '.join(sorted(strangers))}, which are no classes")
    return known


@cache
def _all() -> dict[str, BenchmarkDataset]:
    sets = [read_benchmark(path) for path in sorted(Path(__file__).parent.glob("*.yaml"))]
    return {known.name: known for known in sets}


@cache
def _by_name() -> dict[str, str]:
    found: dict[str, str] = {}
    for known in _all().values():
        for name in known.names:
            if found.setdefault(_plain(name), known.name) != known.name:
                raise ImageryError(f"two known sets are called {name!r}: {known.name}, {found[_plain(name)]}")
    return found


def _plain(name: str) -> str:
    """Names as people vary them: case, blanks, hyphens and underscores do not matter."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _children(path: Path) -> list[Path]:
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:
        return []


def _folders(root: Path) -> Iterator[Path]:
    """Folders below `root`, nearest first, not entering those that hold images."""
    level, seen = [root], 0
    for _ in range(_DEPTH):
        below: list[Path] = []
        for path in level:
            seen += 1
            if seen > _FOLDERS:
                return
            yield path
            below += [child for child in _children(path) if _first_suffix(child) is None]
        level = below


def _first_suffix(folder: Path) -> str | None:
    """Suffix of an image right in this folder; None where there is none."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = Path(entry.name).suffix.lower()
                if suffix in IMAGE_SUFFIXES and not entry.name.startswith("."):
                    return suffix
    except OSError:
        return None
    return None
