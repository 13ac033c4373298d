"""Official Scale-MAE checkpoints: every tensor finds its place, and nothing in the file is executed."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import zipfile

import pytest
import torch
from typer.testing import CliRunner

from swath.encoders.vit import ViT
from swath.errors import CheckpointError
from swath.models import load_model, load_objective
from swath.models.importers.import_weights import import_weights, scale_mae_options
from swath.models.importers.inert_pickle import OpaqueObject, read_checkpoint, to_plain_data
from swath.models.importers.scale_mae import UNUSED, scale_mae_layout
from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig


def released_shapes(dim, depth, patch=16, d=512, decoder_depth=3, h=512, layers=2):
    """Keys and shapes of the released checkpoints, from their published table."""

    def pair(key, shape, bias=None):
        return {f"{key}.weight": shape, f"{key}.bias": (bias or shape[0],)}

    def block(prefix, width):
        return (
            pair(f"{prefix}.norm1", (width,))
            | pair(f"{prefix}.attn.qkv", (3 * width, width))
            | pair(f"{prefix}.attn.proj", (width, width))
            | pair(f"{prefix}.norm2", (width,))
            | pair(f"{prefix}.mlp.fc1", (4 * width, width))
            | pair(f"{prefix}.mlp.fc2", (width, 4 * width))
        )

    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 197, dim),
        "mask_token": (1, 1, d),
        "mask_token_decoder": (1, 1, d),
        "decoder_pos_embed": (1, 197, d),
        **pair("patch_embed.proj", (dim, 3, patch, patch)),
        **pair("norm", (dim,)),
        **pair("decoder_embed", (d, dim)),
        **pair("decoder_norm", (d,)),
        **pair("fpn.fpn1.0", (d, d, 2, 2)),
        **pair("fpn.fpn1.1.ln", (d,)),
        **pair("fpn.fpn1.3", (d, d, 2, 2)),
        **pair("fpn.fpn2.0", (d, d, 2, 2)),
    }
    for i in range(depth):
        shapes |= block(f"blocks.{i}", dim)
    for i in range(decoder_depth):
        shapes |= block(f"decoder_blocks.{i}", d)
    for head in ("fcn_high", "fcn_low"):
        shapes |= pair(f"{head}.proj", (h, d, 1, 1))
        for i in range(layers):
            shapes |= pair(f"{head}.conv_blocks.{i}.convs.1", (h // 2, 2, 3, 3))
            shapes |= pair(f"{head}.conv_blocks.{i}.convs.3", (h, h // 2, 1, 1))
            shapes |= pair(f"{head}.conv_blocks.{i}.residual", (h, h, 1, 1))
        shapes |= pair(f"{head}.pred.0.ln", (h,))
        shapes |= pair(f"{head}.pred.1", (h, h // 2, 4, 4), h // 2)
        shapes |= pair(f"{head}.pred.3", (h // 4, 2, 3, 3))
        shapes |= pair(f"{head}.pred.5", (h // 2, h // 4, 1, 1))
        shapes |= pair(f"{head}.pred.7", (h // 2, 3, 2, 2), 3)
    return shapes


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "tensors", "parameters"),
    [(1024, 24, 16, 393, 322_930_438), (768, 12, 12, 249, None)],
    ids=["ViT-L", "ViT-B"],
)
def test_every_tensor_of_the_released_sizes_has_its_place(dim, depth, heads, tensors, parameters):
    """Built on the meta device: 323 million parameters of shapes, no memory."""
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in released_shapes(dim, depth).items()}
        assert len(weights) == tensors
        if parameters:
            assert sum(w.numel() for w in weights.values()) == parameters
        encoder_options, objective_options = scale_mae_options(weights, {})
        assert encoder_options == {
            "bands": 3,
            "patch_size": 16,
            "embed_dim": dim,
            "depth": depth,
            "heads": heads,
            "mlp_ratio": 4.0,
        }
        assert objective_options is not None
        objective = ScaleMAE(ViT(**encoder_options), ScaleMAEConfig(**objective_options))
        layout = scale_mae_layout(weights)
        state = {ours: to(weights[theirs]) for theirs, (ours, to) in layout.items()}
    assert set(weights) - set(layout) == set(UNUSED)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in objective.state_dict().items()}
    assert objective.config.source_size == 224
    assert (objective.config.decoder_depth, objective.config.fcn_dim) == (3, 512)


@pytest.fixture
def checkpoint(parity_dir, tmp_path):
    """A file as the authors save theirs: weights, and options as a namespace with paths in it."""
    reference = torch.load(parity_dir / "scalemae_tiny.pt", weights_only=True)
    path = tmp_path / "scalemae-tiny.pth"
    options = argparse.Namespace(
        mask_ratio=0.75,
        band_config=[4, 32],
        use_l1_loss=True,
        l1_loss_weight=2.0,
        out=pathlib.PosixPath("/x/y"),
    )
    torch.save({"model": reference["A_default_mse"]["state_dict"], "args": options, "epoch": 799}, path)
    return path, reference


def test_imported_model_embeds_like_the_reference(checkpoint, tmp_path):
    path, reference = checkpoint
    out = import_weights(path, tmp_path / "model", heads=4, decoder_heads=4)
    model = load_model(out)
    images = reference["inputs"]["imgs"]
    with torch.no_grad():
        ours = model.encoder(images, torch.ones(len(images))).cls
    assert (ours - reference["K_knn_feats"]["knn_cls_res1"]).abs().max() < 1e-5
    saved = load_objective(out)
    assert saved is not None
    config = ScaleMAEConfig(**saved.options)
    assert (config.high_pass, config.low_pass, config.high_loss, config.high_weight) == (4, None, "l1", 2.0)
    assert config.source_size == images.shape[-1]
    objective = ScaleMAE(model.encoder, config)
    missing, unexpected = objective.load_state_dict(saved.weights, strict=False)
    assert not unexpected
    assert all(key.startswith("encoder.") for key in missing)
    views = {
        "image": images,
        "gsd": reference["inputs"]["input_res"],
        "target": reference["inputs"]["targets"],
        "noise": reference["inputs"]["noise"],
    }
    expected = reference["B_l1_w2"]["out"]["loss"].item()
    assert objective(views)["total"].item() == pytest.approx(expected, abs=1e-5)
    config_json = json.loads((out / "config.json").read_text())
    assert config_json["contract"]["gsd_mode"] == "relative"
    assert config_json["provenance"]["training_options"]["out"] == "/x/y"
    assert set(config_json["provenance"]["not_taken_over"]) == set(UNUSED)


def test_encoder_alone(checkpoint, tmp_path):
    _, reference = checkpoint
    weights = {
        "module." + key: value
        for key, value in reference["A_default_mse"]["state_dict"].items()
        if key.startswith(("cls_token", "patch_embed", "blocks", "norm", "pos_embed"))
    }
    path = tmp_path / "encoder.pth"
    torch.save(weights | {"module.head.weight": torch.zeros(5, 64)}, path)
    out = import_weights(path, tmp_path / "model", heads=4)
    assert load_objective(out) is None
    assert load_model(out).embed_dim == 64


class Malicious:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def test_nothing_in_the_file_is_executed(tmp_path):
    """Calls of functions, of builtins and of constructors with side effects all stay records."""
    proof = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    payload = {
        "model": {"cls_token": torch.zeros(1, 1, 4)},
        "a": Malicious(os.system, f"touch {proof}"),
        "b": Malicious(eval, f"open({str(proof)!r}, 'w')"),
        "c": Malicious(open, str(proof), "w"),
        "d": Malicious(exec, f"open({str(proof)!r}, 'w')"),
    }
    torch.save(payload, path)
    data = read_checkpoint(path)
    assert not proof.exists()
    assert all(isinstance(data[key], OpaqueObject) for key in "abcd")
    assert data["a"].name == "posix.system"
    assert to_plain_data(data["a"]) == "<inert posix.system>"
    assert torch.equal(data["model"]["cls_token"], torch.zeros(1, 1, 4))


def test_tensors_survive(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    data = {
        "view": base[1:, ::2],
        "transposed": base.t(),
        "parameter": torch.nn.Parameter(base),
        "bf16": base.bfloat16(),
        "bool": base > 3,
        "int": base.long(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5),
        "plain": [1, "two", (3.0, None)],
    }
    torch.save(data, tmp_path / "x.pth")
    read = read_checkpoint(tmp_path / "x.pth")
    for key, value in data.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(read[key], value.detach()), key
            assert read[key].dtype == value.dtype
        else:
            assert read[key] == value


def test_damaged_files(checkpoint, tmp_path):
    path, _ = checkpoint
    data = path.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pth.*cut short"):
        import_weights(cut, tmp_path / "model")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 255
    cut.write_bytes(bytes(flipped))
    with pytest.raises(CheckpointError, match="damaged"):
        import_weights(cut, tmp_path / "model")
    cut.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_checkpoint(cut)
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with zipfile.ZipFile(cut, "w") as archive:
        archive.writestr("hello.txt", "world")
    with pytest.raises(CheckpointError, match=r"not one that torch\.save wrote"):
        read_checkpoint(cut)
    assert not (tmp_path / "model").exists()


def test_refuses_what_is_not_scale_mae(checkpoint, tmp_path):
    _, reference = checkpoint
    weights = reference["A_default_mse"]["state_dict"]
    path = tmp_path / "other.pth"
    for wrong, message in (
        ({"conv1.weight": torch.zeros(1)}, "not a Scale-MAE checkpoint"),
        (weights | {"blocks.9.extra": torch.zeros(1)}, "do not make a Scale-MAE model"),
        (weights | {"surprise": torch.zeros(1)}, "'surprise' is not a tensor"),
        ({k: v for k, v in weights.items() if k != "norm.bias"}, "norm.bias"),
        ({"epoch": 3}, "no state dict"),
    ):
        torch.save(wrong, path)
        with pytest.raises(CheckpointError, match=message):
            import_weights(path, tmp_path / "model", heads=4, decoder_heads=4)
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r"takes 3 bands.*'naip' has 4"):
        import_weights(path, tmp_path / "model", sensor="naip", heads=4)


def test_command(checkpoint, tmp_path):
    from typer import Typer

    from swath.cli.import_weights import command

    path, _ = checkpoint
    app = Typer()
    app.command()(command)
    arguments = [str(path), "--out", str(tmp_path / "model"), "--heads", "4", "--decoder-heads", "4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert load_model(tmp_path / "model").embed_dim == 64
