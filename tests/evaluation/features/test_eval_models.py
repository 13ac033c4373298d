"""Everything that can be scored is found by its name, and says what it cannot look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from swath.datasets.chip import Batch
from swath.errors import CheckpointError, ContractError, SwathError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.features.opening import open_eval_model, open_feature_extractors
from swath.evaluation.features.timm_model import TimmFeatureExtractor
from swath.evaluation.protocols.frozen import evaluate_knn
from swath.models import load_model
from swath.models.importers.import_weights import import_weights

TIMM = "timm:test_resnet"  # 0.5 M parameters, 160 px, made for tests


def batch_of(image: torch.Tensor, sensor: str = "rgb_aerial") -> Batch:
    return {"image": image, "gsd": torch.ones(len(image)), "sensor": sensor}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))


@pytest.mark.parametrize("name", ["statistics", "baseline:statistics"])
def test_baselines_go_by_their_names(name: str) -> None:
    found = open_eval_model(name)
    assert found.extractors[0].name == "image statistics"
    assert (found.sensor.name, found.gsd_mode) == ("rgb_aerial", None)


def test_a_model_directory_may_be_called_like_a_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rcf").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="rcf"):  # an empty model directory, not the baseline
        open_eval_model("rcf")


def test_random_encoder_is_the_same_each_time_and_takes_the_sensors_bands() -> None:
    image = torch.rand(2, 4, 16, 16)
    first, second = (open_feature_extractors("random:vit_micro_patch8", "naip")[0] for _ in range(2))
    batch = batch_of((image * 255).to(torch.uint8), "naip")
    assert torch.equal(first(batch), second(batch))
    assert isinstance(first, ModelFeatureExtractor)
    assert first.name == "vit_micro_patch8 (random weights)"
    assert "random" in first.settings["model"]


def test_several_poolings_share_one_encoding() -> None:
    found = open_feature_extractors("random:vit_micro_patch8", pooling="cls,mean")
    assert [f.settings["pooling"] for f in found] == ["cls", "mean"]


def test_timm_features_are_those_of_timm_with_its_own_configuration(images: torch.Tensor) -> None:
    extractor = TimmFeatureExtractor(TIMM, "rgb_aerial")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = timm.create_model("test_resnet", num_classes=0).eval()
    config = timm.data.resolve_model_data_config(plain)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    ready = (images / 255 - mean) / std
    ready = F.interpolate(ready, size=(160, 160), mode="bilinear", align_corners=False, antialias=True)
    with torch.inference_mode():
        requested = plain(ready)
    assert torch.allclose(extractor(batch_of(images)), requested, atol=1e-4)
    assert extractor.settings["input_size"] == [160, 160]


def test_random_weights_of_timm_are_called_random() -> None:
    found = open_eval_model(TIMM)
    assert "random weights" in found.name
    assert "random weights" in found.notes[0]
    assert "@pretrained" in found.notes[0]


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_timm_weights_come_from_a_file(tmp_path: Path, images: torch.Tensor, ending: str) -> None:
    torch.manual_seed(5)
    trained = timm.create_model("test_resnet", num_classes=7).eval()  # with a classifier, which is left out
    path = tmp_path / f"mine{ending}"
    if ending == ".pth":
        state = {f"module.{k}": v for k, v in trained.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        save_file(trained.state_dict(), path)
    extractor = TimmFeatureExtractor(f"{TIMM}@{path}", "rgb_aerial")
    assert extractor.name == "test_resnet (mine)"
    assert extractor.settings["weights"].startswith("sha256 ")
    assert not extractor.has_random_weights
    # Just as if timm had loaded them: the classifier does not reach the features.
    trained.reset_classifier(0)
    random_weights = TimmFeatureExtractor(TIMM, "rgb_aerial")
    assert not torch.equal(extractor(batch_of(images)), random_weights(batch_of(images)))
    random_weights._module = trained
    assert torch.equal(extractor(batch_of(images)), random_weights(batch_of(images)))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"no checkpoint of timm's test_resnet.*lacks"):
        TimmFeatureExtractor(f"{TIMM}@{tmp_path / 'vit.safetensors'}", "rgb_aerial")
    with pytest.raises(CheckpointError, match="no such file"):
        TimmFeatureExtractor(f"{TIMM}@{tmp_path / 'gone.pth'}", "rgb_aerial")


def test_bands_that_do_not_fit_are_refused_with_the_fix_and_the_fix_works() -> None:
    with pytest.raises(ContractError, match=r"has 4 bands .*--bands red,green,blue"):
        TimmFeatureExtractor(TIMM, "naip")
    four = torch.randint(0, 256, (2, 4, 16, 16), dtype=torch.uint8)
    chosen = TimmFeatureExtractor(TIMM, "naip", bands=["red", "green", "blue"])(batch_of(four, "naip"))
    assert torch.equal(chosen, TimmFeatureExtractor(TIMM, "rgb_aerial")(batch_of(four[:, :3])))
    false_color = TimmFeatureExtractor(TIMM, "naip", bands=["nir", "red", "green"])(batch_of(four, "naip"))
    assert not torch.equal(chosen, false_color)


def test_reflectance_is_shown_up_to_0_3() -> None:
    extractor = TimmFeatureExtractor(TIMM, "sentinel2_l2a", bands=["red", "green", "blue"])
    bands = torch.full((1, 12, 16, 16), 0.05)
    bands[:, [3, 2, 1]] = torch.tensor([0.3, 0.15, 0.9]).view(1, 3, 1, 1)  # B04, B03, B02
    plain = torch.tensor([255.0, 127.5, 255.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    expected = TimmFeatureExtractor(TIMM, "rgb_aerial")(batch_of(plain))
    assert torch.allclose(extractor(batch_of(bands, "sentinel2_l2a")), expected, atol=1e-4)


def test_radar_is_no_picture() -> None:
    with pytest.raises(ContractError, match="dB"):
        TimmFeatureExtractor(TIMM, "sentinel1_grd", bands=["VV", "VH", "VV"])


@pytest.mark.parametrize(
    ("text", "options", "prediction"),
    [
        ("nothing/here", {}, "no such model directory"),
        ("rfc", {}, "Did you mean 'rcf'"),
        ("timm:resnet5", {}, "timm has no model 'resnet5'"),
        ("timm:test_resnet@", {}, "after the @"),
        ("timm:resnet18.nonsense", {}, "no weights 'nonsense'"),
        ("random:vit_microo_patch8", {}, "Did you mean 'vit_micro_patch8'"),
        ("statistics", {"pooling": "mean"}, "--pooling is for models of Swath; statistics is a baseline"),
        ("timm:test_resnet", {"gsd_mode": "metres"}, "--gsd-mode is for models of Swath"),
        ("random:vit_micro_patch8", {"bands": ["red"]}, "--bands is for models of timm"),
    ],
)
def test_errors_say_what_to_do(text: str, options: dict[str, object], prediction: str) -> None:
    with pytest.raises(SwathError, match=prediction):
        open_eval_model(text, **options)  # type: ignore[arg-type]


def test_timm_is_scored_like_any_other(split: TrainTestSplit) -> None:
    found = evaluate_knn(open_feature_extractors(TIMM), split, image_sizes=[8, 32], k=5)
    assert {s.test_image_size for s in found.scores} == {8, 32}
    assert found.mean(found.scores[0].features, "knn").accuracy > 0.5


def test_an_official_checkpoint_is_imported_on_the_way(
    parity_dir: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    reference = torch.load(parity_dir / "cmid_resnet.pt", weights_only=True)
    checkpoint = tmp_path / "CMID_ResNet_test.pth"
    weights = {key.removeprefix("sd."): value for key, value in reference.items() if key.startswith("sd.")}
    torch.save({"epoch": 199, "model": weights}, checkpoint)
    found = open_eval_model(str(checkpoint), device="cpu")
    imported = load_model(import_weights(checkpoint, tmp_path / "model"))
    assert found.model is not None
    assert found.about["model_id"] == imported.id
    batch = batch_of(images)
    assert torch.equal(found.extractors[0](batch), ModelFeatureExtractor(imported)(batch))
