"""GeoTIFFs by URL, over HTTP and as S3 objects from the loopback; STAC as JSON and as GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.range_server import Server, serve
from helpers.rasters import noise, write_tiff
from swath.catalog.catalog import Catalog, build_catalog
from swath.datasets.chips import ChipGrid
from swath.datasets.opening import open_dataset
from swath.errors import ImageryError
from swath.rasters.read import read_header, read_window
from swath.rasters.remote import is_remote, to_vsi_path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    """A folder with a GeoTIFF of three bands and things that are none, served over HTTP."""
    folder = tmp_path / "served"
    (folder / "bucket").mkdir(parents=True)
    write_tiff(folder / "scene.tif", noise(3, 64, 64, np.uint8))
    write_tiff(folder / "bucket" / "scene.tif", noise(3, 64, 64, np.uint8))
    (folder / "page.tif").write_text("<html>not found, politely</html>")
    (folder / "secret.tif").write_text(f'<VRTDataset rasterXSize="1"><!-- {tmp_path} --></VRTDataset>')
    with serve(folder) as server:
        yield server


def test_what_a_url_is() -> None:
    assert is_remote("s3://bucket/a.tif")
    assert not is_remote("/data/a.tif")
    assert not is_remote("C:\\a.tif")
    assert to_vsi_path("https://h/a.tif") == "/vsicurl/https://h/a.tif"
    assert to_vsi_path("gs://b/a.tif") == "/vsigs/b/a.tif"
    for bad in ("ftp://h/a.tif", "file:///etc/passwd", "s3://", "https://h/a b.tif", "https://h/a\n.tif"):
        with pytest.raises(ImageryError, match=r"is read from|is no URL"):
            to_vsi_path(bad)


def test_a_window_by_url_is_the_window_of_the_file(store: Server) -> None:
    url = f"{store.url}/scene.tif"
    header, local = read_header(url), read_header(store.folder / "scene.tif")
    assert (header.crs, header.gsd, header.footprint) == (local.crs, local.gsd, local.footprint)
    for mine, theirs in zip(read_window(header), read_window(local), strict=True):
        assert np.array_equal(mine, theirs)
    data = open_dataset(url, sensor="rgb_aerial", chip_size=32)
    assert isinstance(data, ChipGrid)
    assert len(data) == 4
    assert data.chip(3).source == url


def test_what_is_no_geotiff_behind_a_url_is_refused(store: Server) -> None:
    for name in ("page.tif", "secret.tif", "nothing_there.tif"):
        with pytest.raises(ImageryError, match=f"{name}: cannot be opened as a GeoTIFF"):
            read_header(f"{store.url}/{name}")
    with pytest.raises(ImageryError, match="is for local files"):
        open_dataset(f"{store.url}/scene.tif", sensor="rgb_aerial", layout="images")


def test_objects_of_a_store(store: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_S3_ENDPOINT", store.url.removeprefix("http://")),
        ("AWS_HTTPS", "NO"),
        ("AWS_VIRTUAL_HOSTING", "FALSE"),
        ("AWS_NO_SIGN_REQUEST", "YES"),
    ):
        monkeypatch.setenv(name, value)
    data = open_dataset("s3://bucket/scene.tif", sensor="rgb_aerial", chip_size=32)
    local = open_dataset(store.folder / "bucket" / "scene.tif", sensor="rgb_aerial", chip_size=32)
    for mine, theirs in zip(data, local, strict=True):  # type: ignore[call-overload]
        assert mine["image"].equal(theirs["image"])


def item(name: str, href: str) -> dict[str, object]:
    asset = {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": {"type": "Point", "coordinates": [15.0, 45.0]},
        "bbox": [15.0, 45.0, 15.0, 45.0],
        "properties": {"datetime": "2021-03-04T05:06:07Z", "eo:cloud_cover": 12.5},
        "assets": {"image": asset},
        "links": [],
    }


def test_what_an_item_names_elsewhere_is_fetched_only_if_that_is_asked_for(
    store: Server, tmp_path: Path
) -> None:
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item("far", f"{store.url}/scene.tif")))
    with pytest.raises(ImageryError, match=r"not on the local disk.*--remote"):
        open_dataset(path, sensor="rgb_aerial", chip_size=32)
    assert store.requests == []
    data = open_dataset(path, sensor="rgb_aerial", chip_size=32, remote=True)
    assert len(data) == 4
    assert "image" in data[0]
    catalog = build_catalog(path, sensor="rgb_aerial", remote=True)
    catalog.write(tmp_path / "catalog.parquet")
    assert Catalog.read(tmp_path / "catalog.parquet").scenes[0].files == (f"{store.url}/scene.tif",)
    with pytest.raises(ImageryError, match="--remote"):
        open_dataset(tmp_path / "catalog.parquet", sensor="rgb_aerial", chip_size=32)
    again = open_dataset(tmp_path / "catalog.parquet", sensor="rgb_aerial", chip_size=32, remote=True)
    assert len(again) == 4


def test_items_in_geoparquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("stac_geoparquet.arrow")
    for name in "ab":
        write_tiff(tmp_path / f"{name}.tif", noise(3, 40, 40, np.uint8))
    items = [item(name, f"{name}.tif") for name in "ab"] + [item("far", "https://example.org/far.tif")]
    for one in items:
        one["assets"]["image"]["bands"] = [{"name": band} for band in "RGB"]  # type: ignore[index]
    arrow.to_parquet(arrow.parse_stac_items_to_arrow(items), tmp_path / "items.parquet")
    data = open_dataset(tmp_path / "items.parquet", sensor="rgb_aerial", chip_size=40)
    assert isinstance(data, ChipGrid)
    assert [Path(path).name for path in data.paths] == ["a.tif", "b.tif"]
    assert str(data.scenes[0].header.time) == "2021-03-04 05:06:07+00:00"
    assert data.scenes[0].header.tags["eo:cloud_cover"] == "12.5"
    assert len(data.problems) == 1
    assert "example.org" in data.problems[0][1]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "items.parquet").read_bytes()[:400])
    with pytest.raises(ImageryError, match="cannot be read as Parquet"):
        open_dataset(tmp_path / "cut.parquet", sensor="rgb_aerial")
