"""What a prediction writes, what it refuses, and what it says."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.windows import Window
from typer.testing import CliRunner

from helpers.toy_scenes import CLASSES, by_color, pixels, read, task_model, write_scene
from swath.cli.main import build_app
from swath.errors import ContractError, ImageryError
from swath.models.contract import Contract
from swath.prediction import PredictionOptions, predict_scenes
from swath.prediction import run as run_module
from swath.prediction.inputs import scene_pair
from swath.rasters.read import read_header
from swath.tasks.dense.colors import class_color
from swath.tasks.model import TaskModel, save_task_model

TILE = PredictionOptions(tile=32)


def test_a_map_is_a_cog_with_colors_names_and_the_scenes_place(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", pixels(600, 520))
    report = predict_scenes(
        by_color(), scene, tmp_path / "out", PredictionOptions(tile=128, probabilities=True)
    )
    record = report.scenes[0]
    assert record.files == {"classes": "scene_classes.tif", "probabilities": "scene_probabilities.tif"}
    with rasterio.open(scene) as truth, rasterio.open(tmp_path / "out" / "scene_classes.tif") as file:
        assert (file.crs, file.transform, file.shape) == (truth.crs, truth.transform, truth.shape)
        assert file.nodata == 255
        assert json.loads(file.tags()["CLASSES"]) == list(CLASSES)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        assert file.colormap(1)[1] == (*class_color(1), 255)
        assert file.colormap(1)[255][3] == 0
        classes = file.read(1)
    with rasterio.open(tmp_path / "out" / "scene_probabilities.tif") as file:
        assert file.descriptions == CLASSES
        assert file.scales == (1 / 250,) * 3
        shares = file.read()
    np.testing.assert_allclose(shares.astype(int).sum(0), 250, atol=2)
    np.testing.assert_array_equal(np.take_along_axis(shares, classes[None].astype(int), 0)[0], shares.max(0))
    counted = [record.summary["pixels"][name] for name in CLASSES]
    assert counted == np.bincount(classes.ravel(), minlength=3).tolist()
    assert record.summary["pixels"]["nodata"] == 0


def test_what_lies_under_nodata_does_not_matter_and_stays_nodata(tmp_path: Path) -> None:
    image = pixels(60, 70)
    other = image.copy()
    hidden = (slice(10, 40), slice(20, 50))
    other[:, *hidden] = 255 - other[:, *hidden] // 2
    maps = []
    for name, stored in (("a", image), ("b", other)):
        scene = write_scene(tmp_path / f"{name}.tif", stored)
        with rasterio.open(scene, "r+") as file:
            mask = np.full(file.shape, 255, np.uint8)
            mask[hidden] = 0
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                file.write_mask(mask)
        predict_scenes(task_model(), scene, tmp_path, TILE)
        maps.append(read(tmp_path / f"{name}_classes.tif")[0])
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0][hidden] == 255).all()
    assert ((maps[0] == 255) == (mask == 0)).all()


def test_polygons_hold_their_classes_areas(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", pixels(50, 64), gsd=0.5)
    options = PredictionOptions(tile=32, polygons=("road", "field"))
    report = predict_scenes(by_color(), scene, tmp_path, options)
    classes = read(tmp_path / "scene_classes.tif")[0]
    package = geopandas.read_file(tmp_path / "scene_polygons.gpkg", layer="classes")
    parquet = geopandas.read_parquet(tmp_path / "scene_polygons.parquet")
    assert report.scenes[0].summary["polygons"] == len(package)
    for table in (package, parquet):
        assert table.crs.to_epsg() == 32633
        assert table.is_valid.all()
        assert set(table["class"]) == {"road", "field"}
        for name in ("road", "field"):
            part = table[table["class"] == name]
            count = int((classes == CLASSES.index(name)).sum())
            assert part["pixels"].sum() == count
            assert part.area.sum() == pytest.approx(count * 0.25)
    assert package.geometry.geom_equals(parquet.geometry).all()
    with sqlite3.connect(tmp_path / "scene_polygons.gpkg") as database:
        assert database.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_small_polygons_are_left_out_and_unknown_classes_refused(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", pixels(50, 64))
    predict_scenes(by_color(), scene, tmp_path, PredictionOptions(tile=32, polygons=("all",), min_area=12))
    found = geopandas.read_parquet(tmp_path / "scene_polygons.parquet")
    assert len(found)
    assert found["pixels"].min() >= 12
    with pytest.raises(ContractError, match="no class 'river'; its classes are field, forest, road"):
        predict_scenes(by_color(), scene, tmp_path, PredictionOptions(polygons=("river",)))


def test_a_picture_is_mapped_in_its_pixels(tmp_path: Path) -> None:
    image = pixels(48, 56)
    Image.fromarray(np.moveaxis(image, 0, 2)).save(tmp_path / "picture.png")
    scene = write_scene(tmp_path / "plain.tif", image, crs=None)
    options = PredictionOptions(tile=32, gsd=0.5, polygons=("road",))
    report = predict_scenes(by_color(), [tmp_path / "picture.png", scene], tmp_path / "out", options)
    assert not report.failures
    assert any("pixel coordinates" in note for note in report.scenes[0].notes)
    maps = [read(tmp_path / "out" / f"{name}_classes.tif") for name in ("picture", "plain")]
    np.testing.assert_array_equal(maps[0], maps[1])
    found = geopandas.read_parquet(tmp_path / "out" / "plain_polygons.parquet")
    assert found.crs is None
    inside = rasterio.features.rasterize(found.geometry, out_shape=(48, 56))
    np.testing.assert_array_equal(inside == 1, maps[0][0] == 2)
    assert len(geopandas.read_file(tmp_path / "out" / "plain_polygons.gpkg")) == len(found)


def test_classes_of_tiles_become_a_table(tmp_path: Path) -> None:
    image = pixels(40, 70)
    image[:, :, 32:64] = 0
    scene = write_scene(tmp_path / "scene.tif", image, nodata=0)
    model = task_model("classify")
    report = predict_scenes(model, scene, tmp_path, PredictionOptions(tile=32))
    table = geopandas.read_parquet(tmp_path / "scene_windows.parquet")
    assert len(table) == 2  # of 2 x 3 tiles, those with half of their pixels or more
    assert table[["column", "row", "width", "height"]].values.tolist() == [[0, 0, 32, 32], [0, 8, 32, 32]]
    gsd = read_header(scene).gsd  # on the ground, which is not quite that of the projection
    truth = model.predict(np.stack([image[:, :32, :32], image[:, 8:40, :32]]), gsd=gsd).numpy()
    np.testing.assert_allclose(table[[f"p_{name}" for name in CLASSES]], truth, atol=1e-5)
    assert table["class"].tolist() == [CLASSES[i] for i in truth.argmax(1)]
    with rasterio.open(scene) as file:
        assert table.total_bounds.tolist() == list(file.window_bounds(Window(0, 0, 32, 40)))
    assert sum(report.scenes[0].summary["windows"].values()) == 2
    assert len(geopandas.read_file(tmp_path / "scene_windows.gpkg")) == 2


def test_an_object_on_a_seam_is_found_once(tmp_path: Path) -> None:
    image = np.full((3, 100, 90), 10, np.uint8)
    truth = [(5, 5), (30, 30), (46, 20), (47, 60), (80, 75), (22, 46)]
    for y, x in truth:
        image[:, y : y + 6, x : x + 8] = 250
    image[:, 70:95, 20:50] = 0  # no data, and an object in it
    scene = write_scene(tmp_path / "scene.tif", image, nodata=0)
    report = predict_scenes(bright_boxes(), scene, tmp_path, PredictionOptions(tile=40, overlap=0.3))
    assert not report.failures
    found = geopandas.read_parquet(tmp_path / "scene_objects.parquet")
    assert sorted(zip(found["row"], found["column"], strict=True)) == sorted((y + 3, x + 4) for y, x in truth)
    assert set(found["width"]) == {8.0}
    first = found.sort_values("row").geometry.iloc[0]
    assert first.bounds == (500002.5, 5199994.5, 500006.5, 5199997.5)
    assert len(geopandas.read_file(tmp_path / "scene_objects.gpkg")) == len(truth)


def bright_boxes() -> TaskModel:
    """A detector of bright rectangles: those that a tile sees, whole or cut."""
    from scipy import ndimage

    model = task_model("segment")
    model.dense, model.boxes, model.kind = False, True, "detect"
    model.task.output = "boxes"  # type: ignore[misc]
    model.task.empty_output = lambda shape, device: []  # type: ignore[method-assign,assignment]
    model.task.nms_iou = 0.5  # type: ignore[assignment]

    def predict(batch: Any) -> list[Any]:
        result = []
        for image in batch["image"]:
            labeled, _ = ndimage.label((image[0] > 1.5).numpy())
            boxes = [
                [part[1].start, part[0].start, part[1].stop, part[0].stop]
                for part in ndimage.find_objects(labeled)
            ]
            boxes.append([0, 30, 4, 34])  # a false one, of a low score
            scores = [0.9] * (len(boxes) - 1) + [0.1]
            result.append(
                {
                    "boxes": torch.tensor(boxes, dtype=torch.float32),
                    "scores": torch.tensor(scores),
                    "labels": torch.zeros(len(boxes), dtype=torch.int64),
                }
            )
        return result

    model.task.predict = predict  # type: ignore[method-assign]
    model.task.config = model.task.config.model_copy(update={"window": 40, "seam": 12})
    return model


# ------------------------------------------------------------------------------------------------ two dates


def pair(tmp_path: Path, *, shift: int = 0) -> tuple[Path, Path]:
    """Two dates; the second one `shift` pixels to the right and down, in a georeference that says so."""
    image = pixels(120, 130)
    before = write_scene(tmp_path / "a.tif", image[:, :90, :100])
    place = rasterio.transform.from_origin(500000 + 0.5 * shift, 5200000 - 0.5 * shift, 0.5, 0.5)
    window = image[:, shift : shift + 90, shift : shift + 100]
    return before, write_scene(tmp_path / "b.tif", window, transform=place)


def test_pairs_of_other_grids_are_refused_and_align_is_offered(tmp_path: Path) -> None:
    before, after = pair(tmp_path, shift=4)
    model = task_model("change")
    refused = predict_scenes(model, [scene_pair(before, after)], tmp_path / "out", TILE)
    assert "--coregister" in refused.failures[0][1]
    options = PredictionOptions(tile=32, coregister=True)
    report = predict_scenes(model, [scene_pair(before, after)], tmp_path / "out", options)
    assert not report.failures
    found = read(tmp_path / "out" / "a_b_classes.tif")[0]
    assert (found[:4] == 255).all()  # the second date does not reach there
    assert (found[:, :4] == 255).all()
    assert (found[4:, 4:] != 255).all()
    same = predict_scenes(model, [scene_pair(before, before)], tmp_path / "same", TILE)
    truth = read(tmp_path / "same" / "a_a_classes.tif")[0]
    np.testing.assert_array_equal(found[40:80, 40:80], truth[40:80, 40:80])  # aligned: the same pixels
    assert same.scenes[0].notes == []


def test_a_later_date_under_another_light_is_matched_over_the_whole_scene(tmp_path: Path) -> None:
    before = pixels(90, 600)  # wider than the blocks in which a scene is measured
    dim = write_scene(tmp_path / "dim.tif", (before // 2 + 40).astype(np.uint8))
    first = write_scene(tmp_path / "first.tif", before // 2 * 2)  # what is left of it at half the light
    probabilities = {}
    for match in ("none", "mean_std"):
        model = task_model("change")
        model.task.config = model.task.config.model_copy(update={"radiometric_match": match})
        for name, after in (("same", first), ("dim", dim)):
            out = tmp_path / match / name
            options = PredictionOptions(tile=32, probabilities=True)
            report = predict_scenes(model, [scene_pair(first, after)], out, options)
            assert not report.failures
            (file,) = out.glob("*probabilities.tif")
            probabilities[match, name] = read(file).astype(float)
    off = {
        key: np.abs(probabilities[key, "dim"] - probabilities[key, "same"]) for key in ("none", "mean_std")
    }
    assert off["none"].mean() > 0.05 * probabilities["none", "same"].max()
    assert off["mean_std"].max() <= 0.02 * probabilities["none", "same"].max()


def test_dates_that_are_shifted_in_silence_are_noted(tmp_path: Path) -> None:
    image = pixels(200, 200)
    before = write_scene(tmp_path / "before.tif", image[:, :190, :190])
    after = write_scene(tmp_path / "after.tif", image[:, 3:193, 2:192])
    report = predict_scenes(task_model("change"), [scene_pair(before, after)], tmp_path, TILE)
    assert "-3.0 rows and -2.0 columns" in report.scenes[0].notes[0]


@pytest.mark.parametrize("layout", ["folders", "places", "table"])
def test_pairs_are_found(tmp_path: Path, layout: str) -> None:
    files = {
        "folders": ["A/x.tif", "B/x.tif", "A/y.tif", "B/y.tif"],
        "places": ["x/date1.tif", "x/date2.tif", "y/date1.tif", "y/date2.tif"],
        "table": ["x1.tif", "x2.tif", "y1.tif", "y2.tif"],
    }[layout]
    for name in files:
        write_scene(tmp_path / "in" / name, pixels(20, 20))
    place = tmp_path / "in"
    if layout == "table":
        place = place / "pairs.csv"
        place.write_text("before,after,name\nx1.tif,x2.tif,x\ny1.tif,y2.tif,y\n", encoding="utf-8")
    report = predict_scenes(task_model("change"), place, tmp_path / "out", TILE)
    assert [scene.files["classes"] for scene in report.scenes] == ["x_classes.tif", "y_classes.tif"]


# ------------------------------------------------------------------------------------------ scale and sensor


def test_a_scene_of_another_gsd_is_looked_at_as_the_model_was_trained(tmp_path: Path) -> None:
    image = np.repeat(np.repeat(pixels(40, 50), 2, 1), 2, 2)
    scene = write_scene(tmp_path / "scene.tif", image, gsd=0.25)
    model = by_color(Contract.of("rgb_aerial", gsd_range=(0.5, 0.7)))
    report = predict_scenes(model, scene, tmp_path / "out", TILE)
    record = report.scenes[0]
    assert "trained on 0.5 to 0.7; coarser" in record.notes[0]
    assert record.native_gsd == pytest.approx(0.25, rel=1e-3)
    assert (record.gsd, record.pixels) == (0.5, (50, 40))
    coarse = write_scene(tmp_path / "coarse.tif", image[:, ::2, ::2], gsd=0.5)
    assert predict_scenes(model, coarse, tmp_path / "out", TILE).scenes[0].notes == []
    with (
        rasterio.open(tmp_path / "out" / "scene_classes.tif") as one,
        rasterio.open(tmp_path / "out" / "coarse_classes.tif") as other,
    ):
        assert one.transform.almost_equals(other.transform)
        np.testing.assert_array_equal(one.read(), other.read())
    native = predict_scenes(
        model, scene, tmp_path / "native", PredictionOptions(tile=32, target_gsd="native")
    )
    assert native.scenes[0].pixels == (100, 80)


def test_a_scene_much_too_coarse_is_refused_and_a_stated_gsd_is_for_those_that_do_not_tell(
    tmp_path: Path,
) -> None:
    model = by_color(Contract.of("rgb_aerial", gsd_range=(0.4, 0.7)))
    far = write_scene(tmp_path / "far.tif", pixels(30, 30), gsd=10)
    refused = predict_scenes(model, far, tmp_path / "out", TILE)
    assert "enlarged 14 times" in refused.failures[0][1]
    assert "--read-gsd native" in refused.failures[0][1]
    still = predict_scenes(model, far, tmp_path / "out", PredictionOptions(tile=32, gsd=0.5))
    assert "enlarged 14 times" in still.failures[0][1]  # --gsd does not change what a file says of itself
    native = predict_scenes(model, far, tmp_path / "out", PredictionOptions(tile=32, target_gsd="native"))
    assert native.scenes[0].pixels == (30, 30)
    near = write_scene(tmp_path / "near.tif", pixels(30, 30), gsd=0.6)
    plain = write_scene(tmp_path / "plain.tif", pixels(30, 30), crs=None)
    both = predict_scenes(model, [near, plain], tmp_path / "out", PredictionOptions(tile=32, gsd=0.45))
    assert [round(scene.gsd or 0, 2) for scene in both.scenes] == [0.6, 0.45]
    assert "the stated 0.45 m is for scenes that do not tell" in both.scenes[0].notes[0]


def test_a_model_that_never_saw_metres_looks_at_scenes_as_it_was_trained(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", pixels(40, 40), crs=None)
    model = by_color(Contract.of("rgb_aerial", gsd_mode="relative"))
    report = predict_scenes(model, scene, tmp_path, TILE)
    assert (report.scenes[0].gsd, report.scenes[0].pixels) == (1.0, (40, 40))
    smaller = by_color(Contract.of("rgb_aerial", gsd_mode="relative", gsd_range=(2.0, 4.0)))
    report = predict_scenes(smaller, scene, tmp_path, TILE)  # it was trained on images of half the size
    assert (report.scenes[0].gsd, report.scenes[0].pixels) == (2.0, (20, 20))
    with pytest.raises(ContractError, match="gsd: this model sees scale in metres"):
        predict_scenes(by_color(), scene, tmp_path, PredictionOptions(gsd="relative"))


def test_a_folder_with_scenes_of_no_use_is_done_and_they_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_scene(folder / "deep" / "fine.tif", pixels(40, 40))
    write_scene(folder / "four_bands.tif", np.ones((5, 20, 20), np.uint8))
    write_scene(folder / "other_unit.tif", np.full((3, 20, 20), 4000, np.uint16))
    write_scene(folder / "nowhere.tif", pixels(20, 20), crs=None)
    (folder / "text.tif").write_text("no image", encoding="utf-8")
    whole = write_scene(folder / "cut_off.tif", pixels(200, 200))
    whole.write_bytes(whole.read_bytes()[:60000])
    report = predict_scenes(by_color(), folder, tmp_path / "out", TILE)
    assert report.count("done") == 1
    assert (tmp_path / "out" / "deep" / "fine_classes.tif").is_file()
    problems = {Path(scene).name: reason for scene, reason in report.failures}
    assert set(problems) == {"four_bands.tif", "other_unit.tif", "nowhere.tif", "text.tif", "cut_off.tif"}
    assert "--gsd" in problems["nowhere.tif"]
    assert "bands" in problems["four_bands.tif"]
    written = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert (written["done"], written["failed"]) == (1, 5)


def test_what_is_done_is_skipped_until_something_changes(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", pixels(40, 40))
    model, out = by_color(), tmp_path / "out"

    def status(options: PredictionOptions = TILE) -> str:
        return predict_scenes(model, scene, out, options).scenes[0].status

    assert [status(), status()] == ["done", "present"]
    assert status(PredictionOptions(tile=16)) == "done"
    assert status() == "done"
    write_scene(scene, pixels(40, 40, seed=1))
    assert [status(), status()] == ["done", "present"]
    (out / "scene_classes.tif").unlink()
    assert status() == "done"
    with torch.no_grad():
        next(iter(model.task.parameters())).add_(1)
    assert status() == "done"


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write_scene(tmp_path / "scene.tif", pixels(40, 40))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "predict_tiles", full)
    with pytest.raises(Exception, match="the disk is full"):
        predict_scenes(by_color(), scene, tmp_path / "out", TILE)


def test_results_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("a/scene.tif", "b/scene.tif"):
        write_scene(tmp_path / name, pixels(20, 20))
    both = [tmp_path / "a" / "scene.tif", tmp_path / "b" / "scene.tif"]
    report = predict_scenes(by_color(), both, tmp_path / "out", TILE)
    assert [scene.name for scene in report.scenes] == ["scene", "scene-2"]
    table = tmp_path / "scenes.csv"
    table.write_text("scene,gsd\n../" + tmp_path.name + "/a/scene.tif,0.4\n", encoding="utf-8")
    named = predict_scenes(by_color(), table, tmp_path / "out", TILE)
    assert named.scenes[0].gsd == 0.4
    assert (tmp_path / "out" / named.scenes[0].files["classes"]).resolve().is_relative_to(tmp_path / "out")


def test_nothing_to_predict_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageryError, match="no scene was found"):
        predict_scenes(by_color(), tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ImageryError, match="there is no such"):
        predict_scenes(by_color(), tmp_path / "missing", tmp_path / "out")
    with pytest.raises(ImageryError, match="compares two dates"):
        predict_scenes(task_model("change"), write_scene(tmp_path / "a.tif", pixels(9, 9)), tmp_path / "out")


# ----------------------------------------------------------------------------------------------- command line


def test_the_command_says_what_it_did_and_its_status_tells_of_failures(tmp_path: Path) -> None:
    model = task_model()
    save_task_model(
        tmp_path / "model", model.task, model.contract, kind="segment", encoder_name="vit",
        encoder_options={"bands": 3, "patch_size": 4, "embed_dim": 16, "depth": 2, "heads": 2}, name="toy",
    )  # fmt: skip
    scene = write_scene(tmp_path / "in" / "scene.tif", pixels(40, 40))
    common = ["--out", str(tmp_path / "out"), "--tile", "32", "--device", "cpu"]
    runner = CliRunner()
    done = runner.invoke(build_app(), ["predict", str(tmp_path / "model"), str(scene), *common])
    assert done.exit_code == 0, done.output
    assert "1 scenes done" in done.output
    (tmp_path / "in" / "text.tif").write_text("no image", encoding="utf-8")
    failed = runner.invoke(build_app(), ["predict", str(tmp_path / "model"), str(tmp_path / "in"), *common])
    assert failed.exit_code == 1
    assert "1 were there already" in failed.output
    assert "text.tif" in failed.output
    both = ["--before", str(scene), "--after", str(scene)]
    refused = runner.invoke(build_app(), ["predict", str(tmp_path / "model"), *both, *common])
    assert isinstance(refused.exception, ContractError)
