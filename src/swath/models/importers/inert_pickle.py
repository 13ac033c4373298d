"""Read torch's pickled checkpoints without executing anything that they say.

A pickle is a program: it names functions and the machine calls them. Here no name is ever looked up. The
five that build tensors are answered by functions of this file, which read bytes and nothing else; every other
name becomes an inert record of itself and of what it was to be called with. So a checkpoint whose options
are an `argparse.Namespace` full of paths loads, and one that wants `os.system` loads as harmlessly.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swath.errors import CheckpointError

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class OpaqueObject:
    """Something that a pickle wanted made: its name, its arguments and its state, and nothing done."""

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> OpaqueObject:
        """Record the call."""
        record = super().__new__(cls)
        record.args = args
        record.state = {}
        return record

    args: tuple[Any, ...]
    state: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<inert {self.name}>"


@dataclass(frozen=True)
class _StorageType:
    """Stands for torch.FloatStorage and its like."""

    dtype: torch.dtype


def read_checkpoint(path: str | Path) -> Any:
    """The data of a file that `torch.save` wrote, tensors on the CPU, everything unknown as `OpaqueObject`.

    Args:
        path: File in torch's zip format (every version since 1.6).

    Raises:
        CheckpointError: Not such a file, cut short, or inconsistent.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _CheckpointReader(path, archive).read()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path}: not a checkpoint in torch's zip format, or cut short. Compare its size with the "
            "original's; if it is from before torch 1.6, load and save it again with a newer torch"
        ) from None
    except CheckpointError:
        raise
    except Exception as error:  # the pickle machine raises anything at all on damaged input
        raise CheckpointError(f"{path}: damaged; its pickle cannot be read ({error})") from error


class _CheckpointReader:
    """One open checkpoint."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.storages: dict[str, Tensor] = {}
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{path}: a zip file, but not one that torch.save wrote")
        self.root = pickles[0].removesuffix("data.pkl")
        order = self.root + "byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise CheckpointError(f"{path}: written on a big-endian machine, which is not supported")

    def read(self) -> Any:
        reader = self

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                return reader.stand_in(module, name)

            def persistent_load(self, pid: Any) -> Any:
                return reader.storage(pid)

        with self.archive.open(self.root + "data.pkl") as file:
            return Unpickler(file).load()

    def stand_in(self, module: str, name: str) -> Any:
        """What the pickle gets for a name. Nothing is imported."""
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        return type(name, (OpaqueObject,), {"name": f"{module}.{name}"})

    def storage(self, pid: Any) -> Tensor:
        """The numbers behind one or more tensors."""
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise CheckpointError(f"{self.path}: a storage of an unknown kind")
        if key not in self.storages:
            entry = self.archive.getinfo(f"{self.root}data/{key}")
            dtype = storage_type.dtype
            if entry.file_size != count * dtype.itemsize or entry.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{self.path}: storage {key} does not have the size that is said of it")
            data = bytearray(self.archive.read(entry))  # zipfile compares the CRC
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key]

    def tensor(
        self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Tensor:
        """A view of a storage; torch checks that it stays within."""
        return storage.as_strided(size, stride, offset)


def to_plain_data(value: Any) -> Any:
    """Inert records of options as plain data: a namespace as a dict, a path as text, others by name."""
    if isinstance(value, OpaqueObject):
        if value.name == "argparse.Namespace" and isinstance(value.state, dict):
            return {str(key): to_plain_data(item) for key, item in value.state.items()}
        if value.name.startswith("pathlib."):
            return "/".join(str(part) for part in value.args).replace("//", "/")
        return repr(value)
    if isinstance(value, dict):
        return {str(key): to_plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_data(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
