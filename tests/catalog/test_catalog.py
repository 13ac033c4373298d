"""Catalogs: products of band files, STAC, sensors by evidence, GeoParquet, and rows instead of crashes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rasters import noise, write_tiff
from swath.catalog.catalog import Catalog, build_catalog
from swath.datasets.chips import ChipGrid
from swath.datasets.opening import open_dataset
from swath.errors import ImageryError
from swath.sensors.registry import get_sensor

L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
COARSE = {"B01": 3, "B09": 3, "B05": 2, "B06": 2, "B07": 2, "B8A": 2, "B11": 2, "B12": 2}


def product(folder: Path, stem: str, bands: tuple[str, ...] = L2A, suffix: str = "") -> Path:
    """One file a band, some of them coarser, as Sentinel-2 products have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, band in enumerate(bands):
        step = COARSE.get(band, 1)
        path = folder / f"{stem}_{band}{suffix}.tif"
        write_tiff(path, noise(1, 60 // step, 60 // step, seed=i), pixel=10.0 * step)
    return folder


def by_name(catalog: Catalog) -> dict[str, Any]:
    return {Path(entry.path).name: entry for entry in catalog.entries}


# ---------------------------------------------------------------------------------------- what is a scene


@pytest.mark.parametrize("suffix", ["", "_10m", "_sr"])
def test_band_files_of_a_product_are_one_scene(tmp_path: Path, suffix: str) -> None:
    product(tmp_path / "patch", "S2A_MSIL2A_20170613T101031_87_48", suffix=suffix)
    [entry] = build_catalog(tmp_path).entries
    assert entry.problem is None
    assert entry.sensor == "sentinel2_l2a"
    assert len(entry.files) == 12
    data = ChipGrid([entry.header], "sentinel2_l2a", chip_size=60, offset_dn=0)  # type: ignore[list-item]
    red = data[0]["image"][3].numpy()
    assert red == pytest.approx(noise(1, 60, 60, seed=3)[0] / 10000)


def test_two_products_in_one_folder_stay_apart(tmp_path: Path) -> None:
    product(tmp_path, "one", ("VV", "VH"))
    product(tmp_path, "two", ("VV", "VH"))
    product(tmp_path, "three", ("VV",))  # a band alone is a file like any other
    catalog = build_catalog(tmp_path)
    assert sorted(len(entry.files) for entry in catalog.entries) == [1, 2, 2]
    assert {entry.sensor for entry in catalog.entries} == {None}  # dB or linear: the names do not say


def test_landsat_names_and_files_beside_the_bands(tmp_path: Path) -> None:
    names = get_sensor("landsat89_l2").band_names
    product(tmp_path, "LC08_L2SP_025037_20200101_02_T1", tuple(names))
    for other in ("QA_PIXEL", "QA_RADSAT"):
        write_tiff(tmp_path / f"LC08_L2SP_025037_20200101_02_T1_{other}.tif", noise(1, 60, 60))
    catalog = build_catalog(tmp_path)
    kind, layer = catalog.scenes[0].cloud_layer or ("", "")
    assert (kind, Path(layer).name[-12:]) == ("QA_PIXEL", "QA_PIXEL.tif")
    assert [entry.sensor for entry in catalog.entries if entry.problem is None] == ["landsat89_l2"]
    assert not catalog.problems  # QA_RADSAT is a known layer, counted and left out
    write_tiff(tmp_path / "LC08_L2SP_025037_20200101_02_T1_REST.tif", noise(1, 60, 60))
    assert "none of them; left out" in build_catalog(tmp_path).problems[0][1]


def test_the_sensor_is_known_only_by_evidence(tmp_path: Path) -> None:
    write_tiff(tmp_path / "named.tif", noise(12, 20, 20), descriptions=L2A)
    write_tiff(tmp_path / "unnamed.tif", noise(12, 20, 20))
    write_tiff(tmp_path / "more.tif", noise(13, 20, 20), descriptions=(*L2A, "mask"))
    found = by_name(build_catalog(tmp_path))
    assert found["named.tif"].sensor == "sentinel2_l2a"
    assert found["unnamed.tif"].sensor is None
    assert found["more.tif"].sensor is None
    given = by_name(build_catalog(tmp_path, sensor="sentinel2_l2a"))
    assert {given[name].sensor for name in ("named.tif", "unnamed.tif", "more.tif")} == {"sentinel2_l2a"}


def test_mixed_band_counts_become_rows_with_the_reason(tmp_path: Path) -> None:
    write_tiff(tmp_path / "rgb.tif", noise(3, 20, 20, np.uint8))
    write_tiff(tmp_path / "five.tif", noise(5, 20, 20))
    assert not build_catalog(tmp_path).problems
    [(path, reason)] = build_catalog(tmp_path, sensor="rgb_aerial").problems
    assert Path(path).name == "five.tif"
    assert "five.tif has 5 bands, sensor 'rgb_aerial' wants 3" in reason


def test_broken_files_become_rows(tmp_path: Path) -> None:
    good = write_tiff(tmp_path / "good.tif", noise(3, 64, 64, np.uint8))
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "cut.tif").write_bytes(good.read_bytes()[:600])
    (tmp_path / "program.tif").write_bytes(b"MZ" + bytes(500))
    (tmp_path / "virtual.tif").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    (tmp_path / ".hidden.tif").write_bytes(b"")
    product(tmp_path / "half", "x", ("B02", "B03"))
    (tmp_path / "half" / "x_B03.tif").write_bytes(b"")
    catalog = build_catalog(tmp_path)
    assert len(catalog.scenes) == 1
    reasons = {Path(path).name: reason for path, reason in catalog.problems}
    assert set(reasons) == {"empty.tif", "cut.tif", "program.tif", "virtual.tif", "half"}
    assert "0 bytes" in reasons["empty.tif"]
    assert "0 bytes" in reasons["half"]
    assert "x_B03.tif" in reasons["half"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_mutated_tiffs_never_stop_the_catalog(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(write_tiff(folder / "a.tif", noise(3, 16, 16, np.uint8)).read_bytes())
    for position in data.draw(st.lists(st.integers(0, min(len(content), 600) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    (folder / "a.tif").write_bytes(bytes(content))
    [entry] = build_catalog(folder).entries
    assert (entry.problem is None) == (entry.header is not None)


def test_the_same_file_counts_once(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(3, 20, 20, np.uint8))
    (tmp_path / "b.tif").symlink_to(path)
    catalog = build_catalog(tmp_path)
    assert len(catalog.scenes) == 1
    assert "is the same file as" in catalog.problems[0][1]


def test_nothing_found_and_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="no image in it or below it"):
        build_catalog(tmp_path)
    with pytest.raises(ImageryError, match="there is no such"):
        build_catalog(tmp_path / "nowhere")
    write_tiff(tmp_path / "a.tif", noise(3, 20, 20, np.uint8))
    with pytest.raises(ImageryError, match="no image that matches"):
        build_catalog(tmp_path, pattern="*/s2.tif")


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    for i in range(5):
        write_tiff(tmp_path / f"{i}.tif", noise(3, 20, 20, np.uint8))
    calls: list[tuple[int, int]] = []
    build_catalog(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]


def test_many_files_are_read_by_processes_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        write_tiff(tmp_path / f"{i}.tif", noise(3, 20, 20 + i, np.uint8))
    alone = build_catalog(tmp_path)
    monkeypatch.setattr("swath.catalog.catalog._MANY", 2)
    assert build_catalog(tmp_path, workers=2).entries == alone.entries


# --------------------------------------------------------------------------------------------- GeoParquet


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    product(folder / "s2", "x", suffix="_10m")
    write_tiff(
        folder / "a.tif", noise(3, 20, 30, np.uint8), nodata=7, tags={"ACQUISITION_DATE": "2020-05-06"}
    )
    write_tiff(folder / "far.tif", noise(3, 20, 30, np.uint8), crs="EPSG:32701")
    write_tiff(folder / "nowhere.tif", noise(3, 20, 30, np.uint8), crs=None)
    (folder / "empty.tif").write_bytes(b"")
    return folder


def test_a_catalog_is_read_as_it_was_written(archive: Path, tmp_path: Path) -> None:
    catalog = build_catalog(archive)
    for target in (tmp_path / "outside" / "c.parquet", archive / "c.parquet"):
        catalog.write(target)
        assert Catalog.read(target).entries == catalog.entries


def test_archive_and_catalog_move_together(archive: Path, tmp_path: Path) -> None:
    build_catalog(archive).write(archive / "c.parquet")
    moved = tmp_path / "moved"
    shutil.move(archive, moved)
    data = open_dataset(moved / "c.parquet", sensor="rgb_aerial", chip_size=16, gsd="relative")
    assert len(data) > 0
    assert all(path.startswith(str(moved)) for path in data.paths)


def test_it_opens_in_geopandas(archive: Path, tmp_path: Path) -> None:
    catalog = build_catalog(archive)
    catalog.write(tmp_path / "c.parquet")
    frame = geopandas.read_parquet(tmp_path / "c.parquet")
    assert frame.crs == "OGC:CRS84"
    assert len(frame) == 5
    row = frame[frame["path"].str.endswith("a.tif")].iloc[0]
    assert row.geometry.bounds[0] == pytest.approx(15.0, abs=1e-6)
    assert row["gsd"] == pytest.approx(10, rel=1e-3)
    assert str(row["time"]) == "2020-05-06 00:00:00+00:00"
    assert list(row["bands"]) == ["", "", ""]
    assert (row["width"], row["height"], row["dtype"], row["crs"]) == (30, 20, "uint8", "EPSG:32633")
    assert frame[frame["problem"].notna()]["path"].str.endswith("empty.tif").all()
    assert frame.geometry.isna().sum() == 2
    # The covering column lets readers skip row groups: a box that meets one scene only.
    near = geopandas.read_parquet(tmp_path / "c.parquet", bbox=(14.9, 45.0, 15.1, 45.3))
    assert len(near) == 2


def test_the_metadata_is_geoparquet_1_1(archive: Path, tmp_path: Path) -> None:
    build_catalog(archive).write(tmp_path / "c.parquet")
    geo = json.loads(pq.read_schema(tmp_path / "c.parquet").metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0"
    assert column["encoding"] == "WKB"
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert "crs" not in column  # absent means OGC:CRS84


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(ImageryError, match=r"other\.parquet: is no catalog; make one with `swath inspect"):
        Catalog.read(tmp_path / "other.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "other.parquet").read_bytes()[:100])
    with pytest.raises(ImageryError, match="cannot be read as Parquet"):
        Catalog.read(tmp_path / "cut.parquet")


def test_a_full_disk_leaves_the_old_catalog(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = build_catalog(archive)
    catalog.write(archive / "c.parquet")
    before = (archive / "c.parquet").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        catalog.write(archive / "c.parquet")
    assert (archive / "c.parquet").read_bytes() == before
    assert sorted(path.name for path in archive.iterdir() if ".tmp" in path.name) == []


# --------------------------------------------------------------------------------------------------- STAC


def item(name: str, assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {"datetime": "2021-03-04T05:06:07Z", **properties},
        "assets": assets,
        "links": [],
    }


def asset(href: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "type": "image/tiff; application=geotiff; profile=cloud-optimized", **more}


def dump(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_static_catalog_says_what_is_in_a_folder(tmp_path: Path) -> None:
    product(tmp_path / "items" / "one", "x")
    write_tiff(tmp_path / "not_listed.tif", noise(3, 20, 20, np.uint8))
    write_tiff(tmp_path / "items" / "two.tif", noise(3, 20, 20, np.uint8))
    write_tiff(tmp_path / "items" / "thumb.tif", noise(3, 5, 5, np.uint8))
    assets = {f"asset{i}": asset(f"one/x_{b}.tif", **{"eo:bands": [{"name": b}]}) for i, b in enumerate(L2A)}
    assets["thumbnail"] = asset("thumb.tif", roles=["thumbnail"])
    assets["info"] = {"href": "info.json", "type": "application/json"}
    dump(tmp_path / "items" / "one.json", item("one", assets, **{"s2:processing_baseline": "04.00"}))
    bands = [{"name": "R"}, {"name": "G"}, {"name": "B"}]
    dump(tmp_path / "items" / "two.json", item("two", {"image": asset("two.tif", bands=bands)}))
    links = [
        {"rel": "root", "href": "./catalog.json"},
        {"rel": "child", "href": "./catalog.json"},  # to itself
        {"rel": "item", "href": "./items/one.json"},
        {"rel": "item", "href": "./items/two.json"},
        {"rel": "item", "href": "./items/missing.json"},
        {"rel": "child", "href": "https://example.org/catalog.json"},
    ]
    dump(tmp_path / "catalog.json", {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "links": links})
    catalog = build_catalog(tmp_path)
    one, two = sorted(catalog.scenes, key=lambda scene: scene.bands, reverse=True)
    assert {entry.sensor for entry in catalog.entries if entry.problem is None} == {
        "sentinel2_l2a",
        "rgb_aerial",
    }
    assert one.descriptions == L2A
    assert two.descriptions == ("R", "G", "B")
    assert str(one.time) == "2021-03-04 05:06:07+00:00"
    reasons = " ".join(reason for _, reason in catalog.problems)
    assert len(catalog.problems) == 2
    assert "missing.json" in reasons
    assert "https://example.org/catalog.json" in reasons
    # The item states the processing baseline, so that nobody has to.
    data = open_dataset(tmp_path, sensor="sentinel2_l2a", chip_size=32)
    assert isinstance(data, ChipGrid)
    assert data.scenes[0].offset_dn == -1000


def test_an_item_collection_and_its_remote_assets(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", noise(3, 20, 20, np.uint8), crs=None)
    features = [
        item("near", {"image": asset("a.tif")}, gsd=0.25),
        item("far", {"image": asset("s3://bucket/b.tif")}),
        item("empty", {}),
        {"type": "Feature"},
        None,
    ]
    path = dump(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})
    catalog = build_catalog(path)
    assert [scene.gsd for scene in catalog.scenes] == [0.25]
    reasons = [reason for _, reason in catalog.problems]
    assert len(reasons) == 4
    assert "far" in reasons[0]
    assert "download" in reasons[0]
    assert "no raster assets" in reasons[1]


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"type": "Other"}', "[" * 100_000])
def test_json_that_is_no_stac_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ImageryError, match=r"x\.json"):
        build_catalog(tmp_path / "x.json")


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False)
keys = st.sampled_from(["href", "type", "roles", "bands", "name", "assets", "properties", "gsd", "datetime"])
json_values = st.recursive(
    leaves | st.sampled_from(["a.tif", "data", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(broken=json_values, key=st.sampled_from(["assets", "properties", "id", "type"]))
def test_any_item_is_read_or_explained(
    broken: Any, key: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stac")
    data = item("x", {"a": asset("a.tif")})
    if key == "assets":
        data["assets"] = {"a": broken}
    else:
        data[key] = broken
    path = dump(folder / "x.json", {"type": "FeatureCollection", "features": [data, broken]})
    for entry in build_catalog(path).entries:
        assert entry.problem is not None


# ---------------------------------------------------------------------------------------------- real data


def test_real_products_and_formats(data_dir: Path) -> None:
    folder = data_dir / "fixtures_rico" / "BigEarthNet"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    catalog = build_catalog(folder)
    assert not catalog.problems
    assert sum(entry.sensor == "sentinel2_l2a" for entry in catalog.entries) == 3
    assert sum(len(entry.files) == 2 for entry in catalog.entries) == 4  # Sentinel-1
    assert all(scene.gsd == pytest.approx(10, rel=0.01) for scene in catalog.scenes)
