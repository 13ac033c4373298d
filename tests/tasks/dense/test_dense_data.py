from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from helpers import labeled_images as labeled
from swath.encoders import create_model
from swath.errors import ImageryError
from swath.models.contract import Contract
from swath.rasters.safe_open import rasterio_module
from swath.sensors.registry import get_sensor
from swath.tasks.augmentation import AugmentConfig, MixConfig, TaskAugmentation, mixup_cutmix
from swath.tasks.change.phase_correlation import phase_correlation_shift
from swath.tasks.change.radiometric_match import RadiometryStatistics, match_radiometry
from swath.tasks.dense.config import SegmentationDataConfig
from swath.tasks.dense.data import open_segmentation
from swath.tasks.dense.losses import IGNORE, class_weights, dense_losses
from swath.tasks.dense.masks import MaskValues
from swath.tasks.lora import LoRAConfig, add_lora, merge_lora
from swath.tasks.model import build_task
from swath.tasks.protocol import normalize_task_batch, tasks
from swath.tasks.scores import confusion_matrix, score_classification, score_segmentation
from swath.tasks.splits import stratified_fraction
from swath.training.config.sections import OptimizerConfig
from swath.training.optim.layer_decay import layer_decay_groups, layer_ids

RGB = get_sensor("rgb_aerial")


def opened(path: Path, dates: int = 1, **options: object):
    return open_segmentation(SegmentationDataConfig(gsd=0.5, **options), path, RGB, 0, dates)


# ---- files


def test_mask_values_that_mean_nothing_name_the_file(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    with pytest.raises(ImageryError, match=r"s0\.png: .* pixels have the value 255, which means nothing"):
        opened(tmp_path, classes=["field", "water"])
    splits = opened(tmp_path, classes={"field": 0, "water": 255})
    assert splits.classes == ("field", "water")
    assert splits.weights.sum() == 6 * 32 * 32


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    Image.new("L", (30, 32)).save(tmp_path / "masks" / "s2.png")
    with pytest.raises(ImageryError, match=r"s2\.png: 30 x 32 pixels, but its image .* has 32 x 32"):
        opened(tmp_path)


def test_all_files_of_no_use_are_told_at_once_and_before_training(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path, count=16)
    for i in range(12):
        Image.new("L", (30, 32)).save(tmp_path / "masks" / f"s{i}.png")
    with pytest.raises(ImageryError, match=r"^12 files are of no use:\n.*s0\.png: 30 x 32") as caught:
        opened(tmp_path)
    assert str(caught.value).count("\n") == 11
    assert str(caught.value).endswith("... and 2 more")
    labeled.write_masks(tmp_path, count=16)
    for i in (3, 14):
        Image.new("L", (32, 32), 7).save(tmp_path / "masks" / f"s{i}.png")
    with pytest.raises(ImageryError, match=r"^2 files are of no use:\n.*s3\.png: .*\n.*s14\.png: .*value 7"):
        opened(tmp_path, classes={"field": 0, "water": 255}, test=["*s14*"])


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    (tmp_path / "masks" / "s3.png").unlink()
    with pytest.raises(ImageryError, match=r"s3\.png: has no file of the same name"):
        opened(tmp_path)


def test_colors_are_no_mask(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / "masks" / "s0.png")
    with pytest.raises(ImageryError, match=r"a mask has one band, this has 3.*data\.colors"):
        opened(tmp_path)


def test_masks_in_colors_are_read_by_the_recipes_palette(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    plain = opened(tmp_path, classes={"field": 0, "water": 255})
    expected = [plain.train.read(number)[2] for number in range(6)]
    for i, path in enumerate(sorted((tmp_path / "masks").iterdir())):
        wet = np.array(Image.open(path)) > 0
        picture = np.where(wet[..., None], (0, 0, 255), (0, 200, 0)).astype(np.uint8)
        if i == 0:
            picture[:2, :3] = (9, 9, 9)
        image = Image.fromarray(picture)
        (image.quantize(4) if i == 1 else image).save(path)  # one is a picture with a palette
    palette = {"field": [0, 200, 0], "water": [0, 0, 255]}
    with pytest.raises(ImageryError, match=r"s0\.png: 6 pixels have the color \(9, 9, 9\), which"):
        opened(tmp_path, colors=palette)
    splits = opened(tmp_path, colors=palette, ignore_colors=[[9, 9, 9]])
    assert splits.classes == ("field", "water")
    for number in range(1, 6):
        assert np.array_equal(splits.train.read(number)[2], expected[number])
    first = splits.train.read(0)[2]
    assert (first[:2, :3] == IGNORE).all()
    assert set(np.unique(first)) == {0, 1, IGNORE}
    assert splits.weights.sum() == 6 * 32 * 32 - 6
    both = opened(tmp_path, colors={"land": [[0, 200, 0], [9, 9, 9]], "water": [0, 0, 255]})
    assert both.weights.sum() == 6 * 32 * 32
    with pytest.raises(ImageryError, match=r"data\.colors \(0, 0, 255\) of 'sea' has another meaning"):
        opened(tmp_path, colors={"water": [0, 0, 255], "sea": [0, 0, 255]})
    with pytest.raises(ValueError, match=r"in colors .* or numbers"):
        SegmentationDataConfig(colors=palette, classes=["a", "b"])
    options = SegmentationDataConfig(colors=palette, ignore_colors=[[9, 9, 9]])
    assert SegmentationDataConfig.model_validate(options.model_dump(mode="json")) == options
    labeled.write_masks(tmp_path)
    with pytest.raises(ImageryError, match=r"this has 1 \(L\)\. Masks of numbers want data\.classes"):
        opened(tmp_path, colors=palette)


def test_a_class_map_with_a_color_table_is_a_mask_of_its_numbers(tmp_path: Path) -> None:
    # What `swath predict` and `swath simulate` write, and many class maps that others hand out.
    labeled.write_masks(tmp_path)
    expected = opened(tmp_path, classes={"field": 0, "water": 255}).train.read(0)[2]
    old = sorted((tmp_path / "masks").iterdir())[0]
    values = np.array(Image.open(old))
    old.unlink()
    profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 1, "dtype": "uint8"}
    with rasterio_module().open(old.with_suffix(".tif"), "w", **profile) as file:
        file.write(values, 1)
        file.write_colormap(1, {0: (0, 200, 0, 255), 255: (0, 0, 255, 255)})
    assert (opened(tmp_path, classes={"field": 0, "water": 255}).train.read(0)[2] == expected).all()


def test_a_table_says_folds_and_gsd(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    lines = ["image,mask,split,gsd"]
    lines += [
        f"images/s{i}.png,masks/s{i}.png,{'train' if i < 4 else 'test'},{0.1 * (i + 1)}" for i in range(6)
    ]
    (tmp_path / "index.csv").write_text("\n".join(lines))
    splits = open_segmentation(SegmentationDataConfig(crop_size=32), tmp_path / "index.csv", RGB, 0)
    assert len(splits.train) == 4
    assert splits.val is None
    assert splits.test.gsds.tolist() == pytest.approx([0.5, 0.6])


# ---- crops


def test_crops_are_keyed_and_keep_the_gsd_true(tmp_path: Path) -> None:
    labeled.write_masks(tmp_path)
    train = opened(
        tmp_path, crop_size=16, scale_range=(0.5, 2.0), crops_per_image=3, classes={"field": 0, "water": 255}
    ).train
    assert len(train) == 18
    first, again = train.get_batch([0, 1, 2]), train.get_batch([0, 1, 2])
    assert torch.equal(first["image"], again["image"])
    sides = first["gsd"] / 0.5 * 16  # native pixels that a crop of 16 shows
    torch.testing.assert_close(sides, sides.round())
    assert len(set(sides.tolist())) > 1
    # What was resized along with the image is water where the image is blue.
    blue = first["image"][:, 2] > first["image"][:, 1]
    assert ((first["mask"] == 1) == blue).float().mean() > 0.9
    train.set_epoch(1)
    assert not torch.equal(train.get_batch([0])["image"], first["image"][:1])


def test_image_and_mask_are_turned_together() -> None:
    value = torch.arange(4 * 64).view(4, 1, 8, 8).float()
    batch = {"image": value, "key": torch.arange(4), "mask": value[:, 0].byte(), "valid": value[:, 0] > 3}
    turned = TaskAugmentation(AugmentConfig(), RGB)(batch)
    assert not torch.equal(turned["image"], value)
    assert torch.equal(turned["image"][:, 0].byte(), turned["mask"])
    assert torch.equal(turned["image"][:, 0] > 3, turned["valid"])
    pair = {**batch, "image": value[:, None].repeat(1, 2, 1, 1, 1)}
    both = TaskAugmentation(AugmentConfig(), RGB)(pair)["image"]
    assert torch.equal(both[:, 0], both[:, 1])
    assert torch.equal(both[:, 0], turned["image"])


def test_a_share_holds_all_of_a_smaller_one_and_is_even_over_classes() -> None:
    strata = [0] * 50 + [1] * 20
    large, rest = stratified_fraction(range(70), strata, 0.4, seed=3, epoch=-3)
    small, _ = stratified_fraction(range(70), strata, 0.1, seed=3, epoch=-3)
    assert set(small) < set(large)
    assert sorted([*large, *rest]) == list(range(70))
    assert [sum(strata[i] == k for i in small) for k in (0, 1)] == [5, 2]


# ---- two dates


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_tiles_part_the_training_images_and_the_share_counts_them(tmp_path: Path, cache: str) -> None:
    labeled.write_masks(tmp_path, count=3)
    whole = opened(tmp_path, test=["*s2*"])
    splits = opened(tmp_path, test=["*s2*"], tile=10, crop_size=10, cache=cache)
    assert len(splits.train) == 2 * 3 * 3
    assert [len(splits.test), splits.test.read(0)[2].shape] == [1, (32, 32)]  # what is scored stays whole
    assert (splits.weights == whole.weights).all()
    for image in range(2):  # tiles put side by side are the image again
        of = [splits.train.read(number) for number in range(9 * image, 9 * image + 9)]
        assert min(min(mask.shape) for _, _, mask in of) >= 10
        rows = [np.concatenate([mask for _, _, mask in of[3 * i : 3 * i + 3]], axis=1) for i in range(3)]
        assert (np.concatenate(rows) == whole.train.read(image)[2]).all()
        rows = [np.concatenate([pixels for pixels, _, _ in of[3 * i : 3 * i + 3]], axis=2) for i in range(3)]
        assert (np.concatenate(rows, axis=1) == whole.train.read(image)[0]).all()
    some = opened(tmp_path, test=["*s2*"], tile=10, crop_size=10, label_fraction=0.3)
    assert (
        some.weights.sum() < 0.4 * whole.weights.sum()
    )  # the labels that are not used are not weighed either
    assert sorted(Path(path).stem for path in some.train.paths) == ["s0"] * 3 + ["s1"] * 3
    more = opened(tmp_path, test=["*s2*"], tile=10, crop_size=10, label_fraction=0.6)
    of_some, of_more = ({(item.mask, str(item.tile)) for item in one.train.items} for one in (some, more))
    assert of_some < of_more


def test_a_file_is_looked_at_once_however_many_tiles_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeled.write_masks(tmp_path, count=3)
    seen: list[str] = []
    read = MaskValues.read

    def counted(values: MaskValues, path: str) -> np.ndarray:
        seen.append(Path(path).stem)
        return read(values, path)

    monkeypatch.setattr(MaskValues, "read", counted)
    opened(tmp_path, classes={"field": 0, "water": 255}, test=["*s2*"], tile=10, crop_size=10)
    assert sorted(seen) == ["s0", "s1", "s2"]
    Image.new("L", (30, 32)).save(tmp_path / "masks" / "s1.png")
    with pytest.raises(ImageryError, match=r"^\S*s1\.png: 30 x 32 pixels"):  # and not once a tile
        opened(tmp_path, classes={"field": 0, "water": 255}, test=["*s2*"], tile=10, crop_size=10)


def test_pairs_that_share_a_date_are_kept_apart_in_memory(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("spring", "summer", "autumn"):
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    for number in (0, 1):
        mask = generator.integers(0, 2, (24, 24), dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / f"mask{number}.png")
    table = "before,after,mask\nspring.png,summer.png,mask0.png\nspring.png,autumn.png,mask1.png\n"
    (tmp_path / "pairs.csv").write_text(table)
    kept = opened(tmp_path / "pairs.csv", dates=2, cache="memory").train
    for number in (1, 0, 1):
        image, _, mask = kept.read(number)
        again, _, truth = opened(tmp_path / "pairs.csv", dates=2).train.read(number)
        assert (image == again).all()
        assert (mask == truth).all()
    assert (kept.read(0)[0][1] != kept.read(1)[0][1]).any()


def test_a_tile_smaller_than_a_crop_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"crop of 64 pixels at a zoom of 0\.5 does not fit into a tile of 100"
    ):
        SegmentationDataConfig(crop_size=64, scale_range=(0.5, 1.0), tile=100)


def test_a_shift_between_dates_is_found() -> None:
    generator = np.random.default_rng(0)
    ground = generator.normal(size=(3, 140, 140)).cumsum(1).cumsum(2)
    before, after = ground[:, 5:133, 5:133], ground[:, 2:130, 9:137] + generator.normal(size=(3, 128, 128))
    down, right, trust = phase_correlation_shift(before, after)
    assert (down, right) == pytest.approx((3, -4), abs=0.3)
    assert trust > 8


def test_dates_on_different_grids_are_refused_and_can_be_aligned(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    picture = np.random.default_rng(0).integers(0, 255, (3, 40, 40), dtype=np.uint8)
    for name, x, data in (("date1", 0, picture), ("date2", 4, np.roll(picture, -4, axis=2))):
        (tmp_path / "p").mkdir(exist_ok=True)
        with rasterio.open(
            tmp_path / "p" / f"{name}.tif", "w", driver="GTiff", width=40, height=40, count=3, dtype="uint8",
            crs="EPSG:32633", transform=from_origin(500000 + x, 5000000, 1, 1),
        ) as file:  # fmt: skip
            file.write(data)
    Image.fromarray((picture[0] > 128).astype(np.uint8)).save(tmp_path / "p" / "mask.png")
    with pytest.raises(ImageryError, match=r"data\.coregister=true"):
        open_segmentation(SegmentationDataConfig(crop_size=16), tmp_path, RGB, 0, dates=2)
    splits = open_segmentation(
        SegmentationDataConfig(crop_size=16, coregister=True), tmp_path, RGB, 0, dates=2
    )
    image, valid, _ = splits.train.read(0)
    assert np.array_equal(image[0, :, :, 4:], image[1, :, :, 4:])
    assert not valid[:, :4].any()
    assert valid[:, 5:].all()


# ---- losses, heads, scores


def test_losses_are_those_of_torch_and_ignore_what_does_not_count() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    mask[0, :2] = IGNORE
    found = dense_losses(logits, mask, {"ce": 1.0, "dice": 2.0, "focal": 0.5})
    torch.testing.assert_close(
        found["ce"], torch.nn.functional.cross_entropy(logits, mask, ignore_index=IGNORE)
    )
    torch.testing.assert_close(found["total"], found["ce"] + 2 * found["dice"] + 0.5 * found["focal"])
    perfect = 100 * torch.nn.functional.one_hot(mask.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    assert dense_losses(perfect, mask, {"dice": 1.0})["total"] < 1e-5
    assert dense_losses(logits, torch.full_like(mask, IGNORE), {"ce": 1.0, "dice": 1.0})["total"] == 0


def test_class_weights_have_mean_one_over_places() -> None:
    counts = torch.tensor([900, 100, 0])
    weights = class_weights(counts)
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1)
    assert float(weights[1] / weights[0]) == pytest.approx(3)


def test_mixing_keeps_shares_and_is_keyed() -> None:
    image = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    target, key = torch.eye(4), torch.arange(4)
    for config in (MixConfig(mixup=0.8), MixConfig(cutmix=1.0), MixConfig(mixup=0.2, cutmix=1.0)):
        mixed, shares = mixup_cutmix(image, target, key, config)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        # The mean of an image is the shares' mean of what it was mixed from.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), shares @ torch.arange(4.0))
        assert torch.equal(mixed, mixup_cutmix(image, target, key, config)[0])


@pytest.mark.parametrize("encoder", ["vit_nano_patch4", "resnet_nano"])
@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("segment", "upernet"),
        ("segment", "fpn"),
        ("segment", "linear"),
        ("change", "upernet"),
        ("change", "bit"),
    ],
)
def test_every_head_on_any_size_learns_and_counts_no_nodata(encoder: str, kind: str, head: str) -> None:
    torch.manual_seed(0)
    contract = Contract.of("rgb_aerial")
    config = tasks.get(kind).config(classes=("a", "b"), head=head, head_width=16)
    task = build_task(kind, create_model(encoder, bands=3), config, contract)
    shape = (2, 3, 36, 44) if kind == "segment" else (2, 2, 3, 36, 44)
    valid = torch.ones(2, 36, 44, dtype=torch.bool)
    valid[0, 5:9] = False
    batch = {
        "image": torch.randint(0, 255, shape, dtype=torch.uint8), "gsd": torch.ones(2), "valid": valid,
        "mask": torch.randint(0, 2, (2, 36, 44), dtype=torch.uint8), "key": torch.arange(2),
        "sensor": "rgb_aerial",
    }  # fmt: skip
    ready = normalize_task_batch(contract, batch)
    views = task.views(ready)
    assert int((views["mask"] == IGNORE).sum()) == 4 * 44
    losses = task(views)
    losses["total"].backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())
    assert all(p.grad is not None for n, p in task.named_parameters() if "encoder" not in n)
    said = task.eval().predict(ready)
    torch.testing.assert_close(said.sum(1), torch.ones(2, 36, 44))


def test_scores_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth, said = generator.integers(0, 3, (2, 4, 20, 20))
    truth[:, :3] = IGNORE
    tables = np.stack([confusion_matrix(t, s, 3) for t, s in zip(truth, said, strict=True)])
    scores = score_segmentation(tables, ["a", "b", "c"])
    counts = truth != IGNORE
    t, s = truth[counts], said[counts]
    assert scores.figures["miou"].value == pytest.approx(jaccard_score(t, s, average="macro"))
    assert scores.figures["mf1"].value == pytest.approx(f1_score(t, s, average="macro"))
    assert [row["iou"].value for row in scores.per_class] == pytest.approx(jaccard_score(t, s, average=None))
    assert scores.figures["miou"].low < scores.figures["miou"].value < scores.figures["miou"].high


def test_scores_of_images_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(4), 200), generator.integers(0, 4, 200)
    scores = score_classification(probabilities, labels, list("abcd"))
    said = probabilities.argmax(1)
    assert scores.figures["accuracy"].value == pytest.approx((said == labels).mean())
    assert scores.figures["mf1"].value == pytest.approx(f1_score(labels, said, average="macro"))
    assert scores.figures["accuracy"].low < (said == labels).mean() < scores.figures["accuracy"].high


# ---- what is trained


@pytest.mark.parametrize("name", ["vit_nano_patch4", "swin_nano", "resnet_nano"])
def test_layers_count_from_the_pixels_and_rates_fall(name: str) -> None:
    encoder = create_model(name, bands=3)
    numbers = layer_ids(encoder)
    order = list(numbers.values())
    assert min(order) == 0
    assert len(set(order)) >= 4
    module = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(4, 4)})
    groups = layer_decay_groups(module, encoder, OptimizerConfig(lr=1.0), 0.5)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scale["head.weight"] == 1
    assert max(v for k, v in scale.items() if k.startswith("encoder.")) == 0.5
    assert min(scale.values()) == 0.5 ** (max(order) + 1)
    assert len(scale) == len(list(module.parameters()))


@pytest.mark.parametrize("name", ["vit_nano_patch4", "swin_nano", "resnet_nano"])
def test_merged_lora_is_the_same_function(name: str) -> None:
    torch.manual_seed(0)
    encoder = create_model(name, bands=3).eval()
    for layer in encoder.modules():  # a new ResNet's blocks end in a weight of 0: nothing in them would show
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.ones_(layer.weight)
    names = list(encoder.state_dict())
    image, gsd = torch.randn(2, 3, 64, 64), torch.ones(2)
    before = encoder(image, gsd).pooled
    layers = add_lora(encoder, LoRAConfig(rank=2))
    torch.testing.assert_close(encoder(image, gsd).pooled, before)  # nothing has changed at first
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(layers)
    for p in trained:
        torch.nn.init.normal_(p, std=0.05)
    with torch.no_grad():
        adapted = encoder(image, gsd).pooled
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge_lora(encoder)
    assert set(encoder.state_dict()) == set(names)
    torch.testing.assert_close(encoder(image, gsd).pooled.detach(), adapted, rtol=1e-4, atol=1e-5)


# ---- real imagery


def test_real_data_open(data_dir: Path) -> None:
    roads = open_segmentation(
        SegmentationDataConfig(gsd=0.5, classes={"background": 0, "road": 255}, crop_size=64,
            label_fraction=0.05, test="*_01*"),
        data_dir / "epfl_roads", RGB, 0,
    )  # fmt: skip
    assert roads.train.get_batch([0, 1])["mask"].max() <= 1
    cities = open_segmentation(
        SegmentationDataConfig(crop_size=64, offset_dn=0, test=["bercy/*", "paris/*"]),
        data_dir / "oscd", get_sensor("sentinel2_l1c"), 0, dates=2,
    )  # fmt: skip
    batch = cities.train.get_batch([0, 3])
    assert batch["image"].shape == (2, 2, 13, 64, 64)
    assert batch["gsd"].tolist() == pytest.approx([10, 10], abs=1.5)
    assert 0.001 < cities.weights[1] / cities.weights.sum() < 0.05


# ---- radiometry of pairs


def test_a_date_under_another_light_is_brought_back() -> None:
    generator = np.random.default_rng(0)
    before = generator.random((3, 40, 50)).astype(np.float32)
    before[2] = 0.25  # a band that shows nothing has no spread to go by
    gain, offset = np.array([0.7, 1.3, 1.0]), np.array([0.05, -0.1, 0.0])
    after = (before * gain[:, None, None] + offset[:, None, None]).astype(np.float32)
    valid = generator.random((40, 50)) < 0.8
    after[:, ~valid] = 1e6  # what is not valid has no say
    sensor = get_sensor("sentinel2_l2a").select(["B04", "B03", "B02"])
    assert np.abs(match_radiometry(before, after, valid, sensor) - before)[:, valid].max() < 1e-6
    pieces = RadiometryStatistics(sensor)
    for rows in (slice(0, 7), slice(7, 40)):
        pieces.add(before[:, rows], after[:, rows], valid[rows])
    whole = RadiometryStatistics(sensor)
    whole.add(before, after, valid)
    np.testing.assert_allclose(pieces.match().gain, whole.match().gain, rtol=1e-9)
    np.testing.assert_allclose(pieces.match().offset, whole.match().offset, atol=1e-9)
    nothing = RadiometryStatistics(sensor)
    nothing.add(before, after, np.zeros_like(valid))
    assert (nothing.match()(after) == after).all()


def test_matched_values_stay_in_what_their_unit_can_hold() -> None:
    generator = np.random.default_rng(0)
    before = generator.integers(0, 256, (3, 40, 40)).astype(np.uint8)
    after = generator.integers(100, 140, (3, 40, 40)).astype(np.uint8)
    after[:, 0, 0], after[:, 0, 1] = 0, 255
    found = match_radiometry(before, after, np.ones((40, 40), bool), RGB)
    assert found.min() == 0
    assert found.max() == 255
    stretched = found[:, 5:].std(axis=(1, 2)) / after[:, 5:].std(axis=(1, 2))
    assert (stretched > 3).all()
