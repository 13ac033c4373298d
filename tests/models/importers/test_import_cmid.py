"""Official CMID checkpoints, whole and backbone alone."""

from __future__ import annotations

import sys
import types

import pytest
import timm
import torch
from safetensors.torch import load_file

from swath.encoders.swin import Swin
from swath.errors import CheckpointError
from swath.models import load_model, load_objective
from swath.models.export.registry import export_model
from swath.models.importers.import_weights import import_weights


@pytest.fixture(params=["swin_tiny", "resnet"])
def reference(request, parity_dir):
    return torch.load(parity_dir / f"cmid_{request.param}.pt", weights_only=True)


def weights_of(reference):
    return {key.removeprefix("sd."): value for key, value in reference.items() if key.startswith("sd.")}


def embed(model, reference):
    """Embeddings of the reference images, whose numbers no camera could give: past the check of values."""
    image = model.contract.denormalize(reference["in.img"].float())
    with torch.no_grad():
        return model.embed_batch({"image": image, "gsd": torch.ones(len(image)), "sensor": "rgb_aerial"})


def test_whole_checkpoint(reference, tmp_path):
    path = tmp_path / "whole.pth"
    # As theirs, with an object in it whose class nobody has here.
    module = types.ModuleType("exploring_metric")
    storage = type("MetricStroge", (), {"__module__": "exploring_metric"})
    module.MetricStroge = storage
    sys.modules["exploring_metric"] = module
    try:
        torch.save({"epoch": 199, "model": weights_of(reference), "metric_storage": storage()}, path)
    finally:
        del sys.modules["exploring_metric"]
    out = import_weights(path, tmp_path / "model")
    model = load_model(out)
    embedded = embed(model, reference)
    theirs = reference["eval.student_feat_nomask"].mean((2, 3))
    assert (embedded - theirs).abs().max() <= 2e-5 * theirs.abs().max()
    saved = load_objective(out)
    assert (saved.name, saved.options["queue_size"]) == ("cmid", reference["sd.queue"].shape[1])
    assert "teacher.encoder.conv1.weight" in saved.weights or any(
        key.startswith("teacher.encoder.patch_embed") for key in saved.weights
    )


def test_backbone_alone(reference, tmp_path):
    prefix = "online_encoder.model."
    bare = {k.removeprefix(prefix): v for k, v in weights_of(reference).items() if k.startswith(prefix)}
    path = tmp_path / "backbone.pth"
    torch.save(bare, path)
    model = load_model(import_weights(path, tmp_path / "model", kind="cmid"))
    theirs = reference["eval.student_feat_nomask"].mean((2, 3))
    assert (embed(model, reference) - theirs).abs().max() <= 2e-5 * theirs.abs().max()


@torch.no_grad()
def test_imported_weights_go_on_to_timm(reference, tmp_path):
    """The order of a Swin's patch merging, put right by the import, is the one that timm's network has."""
    path = tmp_path / "whole.pth"
    torch.save({"model": weights_of(reference)}, path)
    image = reference["in.img"].float()
    model = import_weights(path, tmp_path / "model")
    swin = isinstance(load_model(model).encoder, Swin)
    exported = export_model(model, tmp_path / "a.safetensors", size=image.shape[-1] if swin else None)
    network = timm.create_model(exported.facts["architecture"], **exported.facts["arguments"]).eval()
    network.load_state_dict(load_file(exported.path))
    theirs = reference["eval.student_feat_nomask"]
    maps = network.forward_features(image)
    found = maps.permute(0, 3, 1, 2) if swin else maps
    assert (found - theirs).abs().max() <= 2e-5 * theirs.abs().max()


def test_what_does_not_fit_is_refused(reference, tmp_path):
    path = tmp_path / "weights.pth"
    weights = weights_of(reference)
    torch.save({"model": {**weights, "strange.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match=r"'strange\.weight' is not a tensor of a CMID"):
        import_weights(path, tmp_path / "model")
    torch.save({"model": weights}, path)
    with pytest.raises(CheckpointError, match="takes 3 bands, but sensor 'naip' has 4"):
        import_weights(path, tmp_path / "model", sensor="naip")
    with pytest.raises(CheckpointError, match="no heads to be told"):
        import_weights(path, tmp_path / "model", heads=3)
    torch.save({"conv.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a CMID checkpoint"):
        import_weights(path, tmp_path / "model", kind="cmid")
    assert not (tmp_path / "model").exists()
