"""Official CSMAE checkpoints: variants told from their keys, transposition carried in the contract."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from swath.encoders.multi_sensor import MultiSensorViT
from swath.errors import CheckpointError, ContractError
from swath.models import load_model, load_objective
from swath.models.importers.csmae import csmae_layout, is_csmae
from swath.models.importers.import_weights import import_weights
from swath.objectives.csmae import CSMAE
from swath.objectives.csmae_config import CSMAEConfig

S1, S2 = "sentinel1_ben", "sentinel2_ben"


def their_key(ours, depth):
    """The inverse of `csmae_layout`, written down a second time."""
    suffix = {S1: "_s1", S2: "_s2"}
    parts = ours.split(".")
    if parts[0] == "encoder":
        if parts[1] == "cls_token":
            return "backbone.cls_token" + ("_s2" if parts[2] == S2 else "")
        if parts[1] == "patch_embed":
            return f"backbone.patch_embed{'_s2' if parts[2] == S2 else ''}.{'.'.join(parts[3:])}"
        if parts[1] == "specific":
            room = "norm" if parts[3] == str(depth) else f"blocks{suffix[parts[2]]}.{parts[3]}"
            room = f"norm{suffix[parts[2]]}" if room == "norm" else room
            return f"backbone.{room}.{'.'.join(parts[4:])}"
        return "backbone." + ".".join(parts[1:])
    room, rest = "decoder", parts[1:]
    if parts[0] == "decoders":
        room, rest = ("decoder_s2_to_s1" if parts[1] == S1 else "decoder_s1_to_s2"), parts[2:]
    if rest[0] == "pred":
        own = room != "decoder"
        which = "" if own else ("_s2_to_s1" if rest[1] == S1 else "_s1_to_s2")
        return f"{room}.decoder_pred{which}.{rest[2]}"
    return f"{room}.{'mask_token' if rest[0] == 'mask_token' else 'decoder_' + '.'.join(rest)}"


def build(decoder="common", specific=1):
    torch.manual_seed(0)
    encoder = MultiSensorViT(
        {S1: 2, S2: 10}, patch_size=6, embed_dim=64, specific_depth=specific, common_depth=1, heads=1
    )
    config = CSMAEConfig(decoder=decoder, decoder_dim=32, decoder_depth=1, decoder_heads=16)
    return CSMAE(encoder, config)


@pytest.fixture
def checkpoint(tmp_path):
    def write(objective, specific=1, **more):
        weights = {their_key(key, specific): value for key, value in objective.state_dict().items()}
        weights["backbone.pos_embed"] = torch.zeros(1, 17, 64)
        path = tmp_path / "weights.ckpt"
        torch.save({"state_dict": weights | more, "hyper_parameters": {"lr": 1e-4}, "epoch": 149}, path)
        return path

    return write


@pytest.mark.parametrize("decoder", ["common", "specific"])
@pytest.mark.parametrize("specific", [0, 1])
def test_variants_are_told_from_their_keys(checkpoint, tmp_path, decoder, specific):
    objective = build(decoder, specific)
    out = import_weights(checkpoint(objective, specific), tmp_path / "model")
    model = load_model(out)
    assert model.name.startswith(f"csmae_{'s' if specific else 'c'}e{decoder[0]}d_{specific}_1")
    saved = load_objective(out)
    assert (saved.name, saved.options["decoder"]) == ("csmae", decoder)
    encoder = {f"encoder.{key}": value for key, value in model.encoder.state_dict().items()}
    again, whole = encoder | saved.weights, objective.state_dict()
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_users_never_meet_the_transposition(checkpoint, tmp_path):
    objective = build().eval()
    model = load_model(import_weights(checkpoint(objective), tmp_path / "model"))
    assert model.contract.transpose
    normal = torch.randn(2, 2, 12, 24)
    features = model.features(model.contract.denormalize(normal, S1), gsd=10, sensor=S1)
    with torch.no_grad():
        theirs = objective.encoder(normal.transpose(2, 3), torch.ones(2), S1)
    assert (features.pooled - theirs.pooled).abs().max() < 1e-5
    assert features.maps[0].shape[2:] == (2, 4)


def test_a_reference_model_embeds_as_its_authors_do(parity_dir, tmp_path):
    reference = torch.load(parity_dir / "csmae_sesd_tiny.pt", weights_only=True)
    path = tmp_path / "weights.ckpt"
    torch.save({"state_dict": reference["state_dict"]}, path)
    config = reference["config"]
    out = import_weights(
        path, tmp_path / "model", heads=config["num_heads"], decoder_heads=config["decoder_num_heads"]
    )
    model = load_model(out)
    x = reference["x"].transpose(2, 3)  # as a user has it: the network wants rows and columns swapped
    for sensor, image, key in ((S1, x[:, 10:], "s1"), (S2, x[:, :10], "s2")):
        embedded = model.embed(model.contract.denormalize(image, sensor), gsd=10, sensor=sensor)
        assert (embedded - reference[f"eval.feat_{key}"]).abs().max() < 1e-5


def test_backbone_alone(checkpoint, tmp_path):
    objective = build()
    whole = torch.load(checkpoint(objective), weights_only=True)["state_dict"]
    bare = {k.removeprefix("backbone."): v for k, v in whole.items() if k.startswith("backbone.")}
    assert is_csmae(bare)
    path = tmp_path / "backbone.pth"
    torch.save(bare, path)
    model = load_model(import_weights(path, tmp_path / "model"))
    assert model.name == "csmae_se_1_1_d64"
    assert model.embed(torch.full((1, 10, 12, 12), 0.1), gsd=10, sensor=S2).shape == (1, 64)


def test_what_is_no_csmae_is_refused(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"'backbone\.head\.weight' is not a tensor of a CSMAE"):
        import_weights(checkpoint(build(), **{"backbone.head.weight": torch.zeros(3, 64)}), tmp_path / "a")
    with pytest.raises(CheckpointError, match="leave the sensor out"):
        import_weights(checkpoint(build()), tmp_path / "a", sensor="naip")
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a CSMAE checkpoint; it has no patch_embed_s2"):
        import_weights(path, tmp_path / "a", kind="csmae")
    weights = torch.load(checkpoint(build()), weights_only=True)["state_dict"]
    weights["backbone.patch_embed.proj.weight"] = torch.zeros(64, 3, 6, 6)
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match="takes 3 bands of"):
        import_weights(path, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_unknown_sensor_is_refused_with_those_that_are_known(checkpoint, tmp_path):
    model = load_model(import_weights(checkpoint(build()), tmp_path / "model"))
    with pytest.raises(ContractError, match="not trained on sensor 'sentinel1_grd'"):
        model.embed(torch.zeros(1, 2, 12, 12), gsd=10, sensor="sentinel1_grd")


def test_layout_names_every_key_once():
    weights = {their_key(key, 1): None for key in build("specific").state_dict()}
    layout = csmae_layout(weights, S1, S2)
    assert len(set(layout.values())) == len(weights)


def test_command(checkpoint, tmp_path):
    from typer import Typer

    from swath.cli.import_weights import command

    app = Typer()
    app.command()(command)
    arguments = [str(checkpoint(build())), "--out", str(tmp_path / "model"), "--kind", "csmae"]
    done = CliRunner().invoke(app, [*arguments, "--decoder-heads", "16"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "model" / "config.json").is_file()
