"""What Swath raises when the *user* can do something about it.

Every message says what is wrong, where (file, key or row), and how to put it right. The command line prints
the message without a traceback and exits with status 2; anything else that escapes is a bug and keeps its
traceback.
"""

from __future__ import annotations


class SwathError(Exception):
    """Base of all user-facing errors."""


class ImageryError(SwathError):
    """A file or folder of imagery cannot be used; the message names it."""


class UnstatedError(ImageryError):
    """An image is sound, but neither it nor the user states what is needed: its GSD, Sentinel-2's offset."""


class ContractError(SwathError):
    """Imagery or a request does not fit the model's contract (sensor, bands, unit, GSD)."""


class RecipeError(SwathError):
    """A recipe has an unknown, missing or invalid key."""


class CheckpointError(SwathError):
    """A checkpoint or model directory is incomplete, damaged or from another format version."""


class TrainingError(SwathError):
    """Training cannot go on (non-finite loss, disk full); what was saved is named."""


class ArchiveError(SwathError):
    """An operation on an archive failed, e.g. because it was embedded with another model."""


class ArchiveUnavailable(ArchiveError):  # noqa: N818 (says what happened)
    """The archive cannot be read: missing, damaged, of a newer format, disk full. A server returns 503."""


class ChipNotFound(ArchiveError):  # noqa: N818 (says what happened)
    """No chip of the archive has this id or covers this place. A server returns 404."""


class InvalidQuery(ArchiveError):  # noqa: N818 (says what happened)
    """A search or filter argument is invalid; the archive is fine. A server returns 422."""


# Package that an import asks for -> the extra of Swath that installs it.
EXTRA_OF = {
    "rasterio": "geo", "pyproj": "geo", "shapely": "geo", "pyarrow": "geo",
    "lancedb": "archive", "lance": "archive", "faiss": "archive",
    "sklearn": "evaluate", "scipy": "evaluate", "matplotlib": "evaluate",
    "fastapi": "serve", "starlette": "serve", "uvicorn": "serve", "multipart": "serve",
    "prometheus_client": "serve", "httpx": "serve",
    "onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx",
    "ray": "ray", "stac_geoparquet": "stac", "torchgeo": "torchgeo", "lmdb": "lmdb", "h5py": "hdf5",
}  # fmt: skip


def missing_extra(error: ImportError, needing: str) -> SwathError | None:
    """What to install where a package of an extra is missing; None for any other failed import.

    Args:
        error: Of the import.
        needing: What needs the package, such as a command.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(package)
    if extra is None or not isinstance(error, ModuleNotFoundError):
        return None
    return SwathError(
        f"{needing} needs the package {package}, which is not installed. Run pip install '.[{extra}]' in the "
        "clone of Swath ('.[all]' for everything)"
    )


def suggest(word: str, valid_names: list[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest of `valid_names`, or all of them, sorted, if none is near."""
    from difflib import get_close_matches

    spelled = {name.casefold(): name for name in valid_names}  # "db" is near "dB"
    near = get_close_matches(word.casefold(), list(spelled), n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]!r}?" if near else f" Known: {', '.join(sorted(valid_names))}."


Problem = tuple[str, str]
