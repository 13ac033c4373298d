"""Rows for an archive, made without torch, so that a test's other processes start quickly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from swath.archive.table.rows import schema

DIMENSIONS = 8


def make_rows(count: int, first: int = 0, dimensions: int = DIMENSIONS, **columns: Any) -> pa.Table:
    vectors = np.random.default_rng(first).standard_normal((count, dimensions)).astype(np.float32)
    flat = pa.array(vectors.reshape(-1))
    values: dict[str, Any] = {
        "id": [f"{first + i:032x}" for i in range(count)],
        "embedding": pa.FixedSizeListArray.from_arrays(flat, dimensions),
        "sensor": ["rgb_aerial"] * count,
        "gsd": [1.0] * count,
        "source": [f"scene_{i}.tif" for i in range(count)],
        "window": [{"column": 0, "row": 0, "width": 4, "height": 4}] * count,
        "valid_fraction": [1.0] * count,
        "model_id": ["micro-1"] * count,
        "preprocessing": ['{"layout": "images"}'] * count,
        "fingerprint": ["f"] * count,
        **columns,
    }
    requested = schema(dimensions)
    arrays = [
        values[field.name]
        if isinstance(values.get(field.name), pa.Array)
        else pa.array(values.get(field.name, [None] * count), field.type)
        for field in requested
    ]
    return pa.table(arrays, schema=requested)
