"""Patches out of pickles of bigearthnet_encoder, without executing any.

That encoder stores each patch as a pickled Python object, and unpickling in the ordinary way runs whatever
code the file names. Here nothing that a file names is imported: the few names that such a patch consists of
(its own classes, and three of numpy) stand for inert records, every other name is refused, and arrays are
built from their bytes once shape, type and length agree.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from swath.errors import ImageryError
from swath.sensors.units import Array

_ARRAY_MAKERS = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_PACKAGE = "bigearthnet_patch_interface"
_MAX_SIDE = 1024  # a band of a patch has 120 pixels a side


class _Record:
    """An object of the patch's own classes: nothing but its state."""

    def __init__(self, *_: object) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # (dict, slots)
            state = state[0]
        if isinstance(state, dict):
            inner = state.get("__dict__")  # pydantic wraps the fields
            self.fields = inner if isinstance(inner, dict) else state


class _Type:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]


class _ArrayClass:
    """Stands for `numpy.ndarray`, which only appears as an argument."""


class _Array:
    """Stands for an array that is being built."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def build(self, where: str) -> Array:
        """The array [h, w]."""
        state: Any = self.state
        try:
            _, shape, kind, fortran, data = state
            if not (isinstance(kind, _Type) and isinstance(kind.name, str) and isinstance(data, bytes)):
                raise ValueError("state of another form")
            dtype = np.dtype(kind.order + kind.name)
            if dtype.kind not in "uif" or len(shape) != 2 or not all(0 < side <= _MAX_SIDE for side in shape):
                raise ValueError(f"type {dtype}, shape {shape}")
            if math.prod(shape) * dtype.itemsize != len(data):
                raise ValueError(f"{len(data)} bytes for {shape} of {dtype}")
        except (TypeError, ValueError) as error:
            raise ImageryError(f"{where}: a band is not an image ({error})") from None
        array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="))


class _SafeUnpickler(pickle._Unpickler):
    """Python's own, not the one in C, which allocates whatever size of memo a file names."""

    def find_class(self, module: str, name: str) -> Any:
        if module == _PACKAGE or module.startswith(_PACKAGE + "."):
            return _Record
        if (module, name) in _ARRAY_MAKERS:
            return _Array
        if (module, name) == ("numpy", "ndarray"):
            return _ArrayClass
        if (module, name) == ("numpy", "dtype"):
            return _Type
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a patch does not consist of")


def unpack_pickle(value: bytes, where: str) -> tuple[dict[str, Array], tuple[str, ...] | None]:
    """Bands by name, and the CORINE labels if they are stored, of one database value.

    Raises:
        ImageryError: Not a patch of bigearthnet_encoder; names anything but its classes and plain data.
    """
    try:
        patch = _SafeUnpickler(io.BytesIO(value)).load()
    except Exception as error:  # a damaged pickle may raise anything; nothing of it has been run
        raise ImageryError(
            f"{where}: is not a patch of bigearthnet_encoder ({error}); nothing of it was executed"
        ) from None
    if not isinstance(patch, _Record) or not isinstance(patch.fields.get("_bands"), list):
        raise ImageryError(f"{where}: is not a patch of bigearthnet_encoder (it has no bands)")
    bands: dict[str, Array] = {}
    for band in patch.fields["_bands"]:
        name = band.fields.get("name") if isinstance(band, _Record) else None
        data = band.fields.get("data") if isinstance(band, _Record) else None
        if not isinstance(name, str) or not isinstance(data, _Array):
            raise ImageryError(
                f"{where}: is not a patch of bigearthnet_encoder (a band without name or data)"
            )
        bands[name] = data.build(where)
    labels = patch.fields.get("labels")
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return bands, tuple(labels)
    return bands, None
