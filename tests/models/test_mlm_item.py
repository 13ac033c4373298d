"""mlm.json as pystac's extension for machine-learning models reads it, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pystac
import pytest

pytest.importorskip("pystac.extensions.mlm")
from pystac.extensions.mlm import MLMExtension, ValueScaling


def test_a_model_is_read_by_pystac(folder: Path) -> None:
    item = pystac.Item.from_dict(json.loads((folder / "mlm.json").read_text()))
    model = MLMExtension.ext(item)
    assert model.mlm_name == json.loads((folder / "config.json").read_text())["name"]
    assert model.tasks == ["similarity-search"]
    assert model.framework == "PyTorch"
    (images,) = model.input
    assert (images.name, images.bands) == ("rgb_aerial", ["R", "G", "B"])
    assert images.input.dim_order == ["batch", "bands", "height", "width"]
    # One a band, as the extension wants since 1.4; pystac's attribute takes the list for one of them.
    scalings = [ValueScaling(scaling) for scaling in images.properties["value_scaling"]]
    assert [scaling.type for scaling in scalings] == ["z-score"] * 3
    config = json.loads((folder / "config.json").read_text())
    bands = config["contract"]["sensors"]["rgb_aerial"]["bands"]
    assert [(scaling.mean, scaling.stddev) for scaling in scalings] == [(b["mean"], b["std"]) for b in bands]
    (embedding,) = model.output
    assert embedding.result.shape == [-1, 32]
    assert model.hyperparameters is not None
    assert model.hyperparameters.to_dict()["gsd_mode"] == "metres"
    item.stac_extensions = []  # their schemas are in the network; STAC's own come with pystac
    item.validate()
