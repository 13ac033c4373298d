"""TorchGeo's data sets through the adapter, with the real package where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from swath.datasets.protocol import ImageDataset
from swath.datasets.torchgeo import TorchGeoImages, open_torchgeo
from swath.errors import ImageryError, SwathError


class Pictures:
    """What the adapter needs of a TorchGeo data set, without TorchGeo."""

    classes = ("dark", "light")
    imgs = (("a.png", 0), ("b.png", 1), ("c.png", 1))

    def __len__(self) -> int:
        return len(self.imgs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == 2:
            raise OSError("truncated file")
        level = torch.full((3, 8, 8), 250.6 if index else 20.0)
        return {"image": level, "label": torch.tensor(self.imgs[index][1])}


def test_samples_become_ours() -> None:
    data = TorchGeoImages(Pictures(), "rgb_aerial", 0.5)
    assert isinstance(data, ImageDataset)
    assert data.classes == ["dark", "light"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    sample = data[1]
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].unique().tolist() == [251]
    assert (sample["gsd"], sample["label"]) == (0.5, 1)
    batch = data.get_batch([0, 2])
    assert len(batch["image"]) == 1
    assert batch["problems"] == [("c.png", "truncated file")]


def test_other_bands_are_refused() -> None:
    with pytest.raises(ImageryError, match=r"torchgeo:Pictures has 3 bands, sensor 'naip' 4"):
        TorchGeoImages(Pictures(), "naip", 0.5)


def test_without_torchgeo_the_fix_is_said(tmp_path: Path) -> None:
    try:
        import torchgeo  # noqa: F401
    except ImportError:
        with pytest.raises(SwathError, match=r"\.\[torchgeo\]"):
            open_torchgeo("EuroSAT", tmp_path)
    else:
        with pytest.raises(ImageryError, match="Did you mean 'EuroSAT'"):
            open_torchgeo("EuroSTA", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_real_torchgeo_reads_real_eurosat(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchgeo", reason="the extra torchgeo is not installed")
    from torchgeo.datasets import EuroSAT

    source = data_dir / "fixtures_rico" / "EuroSAT_MS"
    shutil.copytree(source, tmp_path / EuroSAT.base_dir)
    names = [path.name.replace(".tif", ".jpg") for path in sorted(source.rglob("*.tif"))]
    for split in ("train", "val", "test"):
        (tmp_path / f"eurosat-{split}.txt").write_text("\n".join(names))
    splits = open_torchgeo("torchgeo:eurosat", tmp_path)
    assert list(splits) == ["train", "val", "test"]
    data = splits["train"]
    assert data.sensor.name == "sentinel2_eurosat"
    assert len(data) == 3
    assert data[0]["gsd"] == 10.0

    # Bit for bit what our own reader finds in the same layout.
    from swath.datasets.benchmarks.catalog import get_benchmark
    from swath.evaluation.data.opening import open_benchmark

    own = open_benchmark(get_benchmark("eurosat-ms").find(tmp_path), data.sensor, "relative").dataset
    by_name = {Path(path).name: i for i, path in enumerate(own.paths)}
    for i, path in enumerate(data.paths):
        theirs = data[i]["image"]
        assert torch.allclose(theirs, own[by_name[Path(path).name]]["image"], atol=1e-7)


@pytest.mark.filterwarnings("ignore")
def test_real_torchgeo_ucmerced_is_opened_by_name(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchgeo", reason="the extra torchgeo is not installed")
    from swath.evaluation.data.opening import open_eval_data

    images = tmp_path / "UCMerced_LandUse" / "Images"
    random = np.random.default_rng(0)
    for name, level in (("airplane", 60), ("forest", 180)):
        (images / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.clip(random.normal(level, 9, (256, 256, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(images / name / f"{name}{i:02}.tif")
    for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        lines = [f"{name}{i:02}.tif" for name in ("airplane", "forest") for i in numbers]
        (tmp_path / f"uc_merced-{split}.txt").write_text("\n".join(lines))
    split = open_eval_data("torchgeo:UCMerced", sensor="rgb_aerial", root=tmp_path, gsd_mode="metres")
    assert (len(split.bank.indices), len(split.queries.indices)) == (4, 2)
    assert split.bank.dataset[0]["gsd"] == pytest.approx(0.3048)
    assert split.origin == "TorchGeo's train and val"
    with pytest.raises(ImageryError, match="cannot be opened in"):
        open_torchgeo("UCMerced", tmp_path / "empty")
    with pytest.raises(ImageryError, match="its GSD is not known here"):
        open_torchgeo("RESISC45", tmp_path)
