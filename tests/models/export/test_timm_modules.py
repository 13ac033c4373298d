"""Our encoders where timm's are expected: `features_only`, by name in the registry, in TorchGeo's tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from swath.encoders import create_model
from swath.errors import ContractError
from swath.models.contract import Contract
from swath.models.directory import load_model, save_model
from swath.models.export.timm_modules import TimmBackbone, TimmClassifier, register_with_timm

ENCODERS = {
    "vit": {"patch_size": 8, "embed_dim": 16, "depth": 4, "heads": 2},
    "swin": {"embed_dim": 8, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 4},
    "resnet_nano": {},
}


def saved(path: Path, name: str = "vit", **contract: object) -> Path:
    torch.manual_seed(3)
    options = {"bands": 3, **ENCODERS[name]}
    return save_model(
        path, encoder_name=name, encoder_options=options, encoder=create_model(name, **options),
        contract=Contract.of("rgb_aerial", **contract), name="drop_in",
    )  # fmt: skip


def pictures(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("name", list(ENCODERS))
def test_maps_and_what_is_told_of_them_follow_timm(name: str, tmp_path: Path) -> None:
    maps = TimmBackbone(load_model(saved(tmp_path / "m", name)), gsd=0.5)
    reference = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    assert maps.feature_info.reduction() == reference.feature_info.reduction() == [4, 8, 16, 32]
    given = maps(pictures())
    assert [list(x.shape) for x in given] == [
        [2, channels, 64 // stride, 96 // stride]
        for channels, stride in zip(maps.feature_info.channels(), (4, 8, 16, 32), strict=True)
    ]
    last = TimmBackbone(load_model(tmp_path / "m"), gsd=0.5, out_indices=(-1, 1))
    assert last.out_indices == last.feature_info.out_indices == (1, 3)
    assert last.feature_info.channels() == [maps.feature_info.channels()[i] for i in (1, 3)]
    if name != "vit":  # whose pyramid has layers that nobody has trained
        assert torch.equal(last.eval()(pictures())[1], maps.eval()(pictures())[3])
    assert len(maps(pictures(50, 70))) == 4  # any size
    sum(x.mean() for x in given).backward()
    assert any(p.grad is not None for p in maps.pyramid.encoder.parameters())


def test_pixels_mean_what_they_mean_to_the_model(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "m"))
    images = pictures()
    embedding = model.embed(images, gsd=0.5)
    torch.testing.assert_close(TimmClassifier(model, gsd=0.5).eval()(images).detach(), embedding)
    divided = TimmClassifier(model, gsd=0.5, scale=255).eval()
    torch.testing.assert_close(divided(images / 255).detach(), embedding, rtol=1e-4, atol=1e-5)
    with pytest.raises(ContractError):  # 0 to 1 where 0 to 255 is wanted
        TimmClassifier(model, gsd=0.5)(images / 255)
    maps = TimmBackbone(model, gsd=0.5).eval()
    assert torch.equal(maps(images, gsd=0.5)[0], maps(images)[0])
    assert not torch.equal(maps(images, gsd=2.0)[0], maps(images)[0])
    with pytest.raises(ContractError, match="GSD"):
        TimmBackbone(model)
    with pytest.raises(ValueError, match="out_indices"):
        TimmBackbone(model, gsd=0.5, out_indices=(4,))


def test_a_transposed_encoder_gives_upright_maps(tmp_path: Path) -> None:
    plain = load_model(saved(tmp_path / "a", "resnet_nano"))
    turned = load_model(saved(tmp_path / "b", "resnet_nano", transpose=True))
    images = pictures()
    one = TimmBackbone(plain, gsd=1.0).eval()(images.transpose(2, 3))
    other = TimmBackbone(turned, gsd=1.0).eval()(images)
    torch.testing.assert_close(other[0], one[0].transpose(2, 3))
    torch.testing.assert_close(
        TimmClassifier(turned, gsd=1.0).eval()(images),
        TimmClassifier(plain, gsd=1.0).eval()(images.transpose(2, 3)),
    )


def test_timm_finds_a_model_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    assert register_with_timm("swath_by_name", path, gsd=0.5) == "swath_by_name"
    backbone = timm.create_model("swath_by_name", pretrained=True, features_only=True, out_indices=(0, 2))
    assert backbone.feature_info.reduction() == [4, 16]
    weights = load_model(path).encoder.state_dict()
    own = backbone.pyramid.encoder.state_dict()
    assert all(torch.equal(weights[key], own[key]) for key in weights)
    fresh = timm.create_model("swath_by_name", features_only=True).pyramid.encoder.state_dict()
    assert not torch.equal(fresh["patch_embed.proj.weight"], weights["patch_embed.proj.weight"])
    classifier = timm.create_model("swath_by_name", pretrained=True, num_classes=5, in_chans=3)
    assert classifier(pictures()).shape == (2, 5)
    assert classifier.get_classifier().out_features == 5
    classifier.reset_classifier(2)
    assert classifier(pictures()).shape == (2, 2)
    with pytest.raises(ContractError, match="in_chans=4"):
        timm.create_model("swath_by_name", in_chans=4)
    with pytest.raises(ContractError, match="already"):
        register_with_timm("resnet18", path, gsd=0.5)
    with pytest.raises(ContractError, match="underscores"):
        register_with_timm("my-model", path, gsd=0.5)
    with pytest.raises(ContractError, match="GSD"):
        register_with_timm("swath_without_gsd", path)


@pytest.mark.parametrize("name", ["vit", "resnet_nano"])
def test_torchgeos_tasks_train_on_it(name: str, tmp_path: Path) -> None:
    trainers = pytest.importorskip(
        "torchgeo.trainers", reason="the extra torchgeo is not installed", exc_type=ImportError
    )
    known = register_with_timm(f"swath_in_torchgeo_{name}", saved(tmp_path / "m", name), gsd=0.5, scale=255)
    images = pictures(64, 64) / 255
    task = trainers.ClassificationTask(
        model=known, weights=True, in_channels=3, task="multiclass", num_classes=4, freeze_backbone=True
    )
    logits = task(images)
    assert logits.shape == (2, 4)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert {n for n, p in task.named_parameters() if p.grad is not None} == {
        "model.head.weight",
        "model.head.bias",
    }
    task = trainers.SemanticSegmentationTask(
        model="unet", backbone=f"tu-{known}", weights=True, in_channels=3, task="multiclass", num_classes=4
    )
    logits = task(images)
    assert logits.shape == (2, 4, 64, 64)
    logits.mean().backward()
    weights = load_model(tmp_path / "m").encoder.state_dict()
    own = {k.split("encoder.model.pyramid.encoder.")[-1]: v for k, v in task.model.state_dict().items()}
    assert torch.equal(next(iter(weights.values())), own[next(iter(weights))])
