"""Which samples make a batch: whatever has pixels, and a substitute for what has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swath.errors import ImageryError
from swath.training.loading import TRIES, fetch_batch


class Flawed:
    """Eight samples: 2 has a problem but pixels all the same, 5 has none."""

    def __init__(self, paired: bool) -> None:
        self.paired, self.lost = paired, {5}

    def __len__(self) -> int:
        return 8

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"index": index, "key": index}
        if index in {2, *self.lost}:
            sample["problem"] = (f"{index}.tif", "flawed")
        image = {
            "image": torch.full((1, 4, 4), float(index)),
            "valid": torch.ones(4, 4, dtype=torch.bool),
            "gsd": 1.0,
            "sensor": "x",
            "index": index,
            "key": index,
        }
        if index in self.lost:
            return {**sample, **({"shapes": {"x": (1, 4, 4)}} if self.paired else {"shape": (1, 4, 4)})}
        return {**sample, "sensors": {"x": image}} if self.paired else {**image, **sample}


@pytest.mark.parametrize("paired", [False, True])
def test_a_sample_is_judged_by_its_pixels(paired: bool) -> None:
    batch = fetch_batch(Flawed(paired), 0, [1, 2, 5])  # type: ignore[arg-type]
    assert batch["index"].tolist() == [1, 2, 6]
    assert [path for path, _ in batch["problems"]] == ["2.tif", "5.tif"]


@pytest.mark.parametrize("paired", [False, True])
def test_a_data_set_that_is_gone_is_an_error(paired: bool) -> None:
    data = Flawed(paired)
    data.lost = set(range(8))
    with pytest.raises(ImageryError, match=f"{TRIES} samples in a row"):
        fetch_batch(data, 0, [0])  # type: ignore[arg-type]
