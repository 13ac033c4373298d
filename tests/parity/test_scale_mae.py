"""Equality with the released Scale-MAE code, to 1e-5, in every tensor of the reference file."""

from __future__ import annotations

import ast
import re

import pytest
import torch
import torch.nn.functional as F

from helpers.reference_options import reduce_views
from swath.encoders.positions import gsd_positions
from swath.encoders.vit import ViT
from swath.models.importers.scale_mae import UNUSED, scale_mae_layout
from swath.objectives.losses.reconstruction import low_pass
from swath.objectives.modules.masking import random_masking
from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig

TOLERANCE = 1e-5
CASES = (
    "A_default_mse",
    "B_l1_w2",
    "C_band_7_224",
    "D_absolute_scale",
    "E_source32",
    "F_band_5_56_l1",
    "G_shared_head_progressive",
    "H_two_target_sizes_gptblock",
)


@pytest.fixture(scope="module")
def reference(parity_dir):
    return torch.load(parity_dir / "scalemae_tiny.pt", weights_only=True)


def close(ours, theirs, what):
    """Within the tolerance, of the largest number of theirs where that is above 1."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} is not {tuple(theirs.shape)}"
    theirs = theirs.double()
    difference = (ours.detach().double() - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())
    assert difference <= TOLERANCE, f"{what} differs by {difference:.2e}"


def nchw(x):
    return x.permute(0, 3, 1, 2)


def patchify(image, side):
    """[B, C, H, W] -> [B, N, side * side * C], bands last, as the reference stores it."""
    batch, bands, height, width = image.shape
    image = image.view(batch, bands, height // side, side, width // side, side)
    return image.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2).flatten(2)


def settings(reference, case):
    """The case's options, all read from the file."""
    base = {}
    for name, text in reference["meta"]["base_config"].items():
        try:
            base[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):  # the norm layer is named by a Python expression
            base[name] = text
    return base | reference[case]["overrides"]


def mask_ratio(out):
    """Such that as many patches are kept as the reference's mask keeps."""
    hidden = out["mask"].sum(1)
    assert len(hidden.unique()) == 1
    return (float(hidden[0]) - 0.5) / out["mask"].shape[1]


def build(reference, case, source_size):
    theirs = settings(reference, case)
    # What the released code has options for and never uses otherwise.
    assert (theirs["norm_pix_loss"], theirs["loss_masking"], theirs["use_mask_token"]) == (True, True, True)
    assert not any(theirs[name] for name in ("project_pos_emb", "self_attention", "fixed_output_size"))
    low, high = theirs["band_config"]
    config = ScaleMAEConfig(
        source_size=source_size,
        mask_ratio=mask_ratio(reference[case]["out"]),
        decoder_dim=theirs["decoder_embed_dim"],
        decoder_depth=theirs["decoder_depth"],
        decoder_heads=theirs["decoder_num_heads"],
        fcn_dim=theirs["fcn_dim"],
        fcn_layers=theirs["fcn_layers"],
        independent_heads=theirs["independent_fcn_head"],
        progressive=theirs["progressive"],
        high_pass=low,
        low_pass=224 if high == 224 else None,
        high_loss="l1" if theirs["use_l1_loss"] else "l2",
        high_weight=theirs["l1_loss_weight"] if theirs["use_l1_loss"] else 1.0,
        head_chunk=2,
    )
    encoder = ViT(
        theirs["in_chans"],
        patch_size=theirs["patch_size"],
        embed_dim=theirs["embed_dim"],
        depth=theirs["depth"],
        heads=theirs["num_heads"],
        mlp_ratio=theirs["mlp_ratio"],
    )
    objective = ScaleMAE(encoder, config)
    weights = reference[case].get("state_dict", reference["A_default_mse"]["state_dict"])
    layout = scale_mae_layout(weights)
    objective.load_state_dict({ours: to(weights[key]) for key, (ours, to) in layout.items()})
    return objective, layout


def views_of(reference, case):
    inputs, given = reference["inputs"], reference[case]
    absolute = settings(reference, case)["absolute_scale"]
    views = {
        "image": inputs["imgs"],
        "gsd": torch.ones_like(inputs["input_res"]) if absolute else inputs["input_res"],
        "target": inputs["targets"],
        "target_gsd": inputs["target_res"],
        "noise": inputs["noise"],
    }
    if given["source_size"]:
        views = reduce_views(views, given["source_size"], targets_from_source=True)
        patches = given["out"]["mask"].shape[1]
        views["noise"] = next(
            noise for name, noise in inputs.items() if name.startswith("noise") and noise.shape[1] == patches
        )
    return views


class Taps:
    """Outputs (and inputs) of modules during one call."""

    def __init__(self, **modules):
        self.out, self.into = {}, {}
        self.handles = [
            module.register_forward_hook(lambda _, args, out, name=name: self.keep(name, args, out))
            for name, module in modules.items()
        ]

    def keep(self, name, args, out):
        self.into.setdefault(name, args[0].detach())
        self.out.setdefault(name, out if isinstance(out, tuple) else out.detach())

    def close(self):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_loss_and_gradient(reference, case):
    out = reference[case]["out"]
    views = views_of(reference, case)
    objective, layout = build(reference, case, views["image"].shape[-1])
    encoder, decoder = objective.encoder, objective.decoder
    checked = set()

    def check(name, ours):
        if name in out:
            close(ours, out[name], f"{case}: {name}")
            checked.add(name)

    masking = random_masking(views["noise"], objective.config.mask_ratio)
    check("ids_restore", masking.restore)
    check("mask", masking.mask.float())
    check("imgs_seen_by_encoder", views["image"])
    check("loss_targets_image", views["target"])
    grid = views["image"].shape[-1] // encoder.patch_size
    check("patch_tokens", encoder.patch_embed(views["image"]))
    check("enc_in_tokens", encoder.embed_patches(views["image"], views["gsd"]))
    width = decoder.mask_token.shape[-1]
    check("pos_embed_encoder", gsd_positions(grid, grid, width, views["gsd"]))
    fine = views["target"].shape[-1] // encoder.patch_size
    check("pos_embed_decoder_unused", gsd_positions(fine, fine, width, views["target_gsd"]))

    taps = Taps(embed=decoder.embed, block=decoder.blocks[0], norm=decoder.norm, encoder_norm=encoder.norm)
    tokens = objective.decode(views, masking)
    taps.close()
    check("latent", taps.out["encoder_norm"])
    check("dec_embed", taps.out["embed"])
    check("dec_in", taps.into["block"])
    check("dec_norm", taps.out["norm"])
    with torch.no_grad():
        low_map, high_map = decoder.pixels.branches(tokens)
        low, high = (one(tokens, None, "pixels") for one in (decoder.pixels.low, decoder.pixels.high))
    check("fpn_low", nchw(low_map))
    check("fpn_high", nchw(high_map))
    check("pred_low", nchw(low))
    check("pred_high", nchw(high))
    check("patch_low", patchify(nchw(low), encoder.patch_size))
    target_low, target_high, _, _ = objective.targets(views["target"], None)
    check("target_low", target_low)
    check("target_high", target_high)
    pictures = objective.images(views)
    check("patch_all", patchify(pictures["combined"][:1], encoder.patch_size))
    assert torch.equal(
        pictures["combined"],
        nchw(high) + low_pass(nchw(low), None, (objective.config.high_pass,) * 2, high.shape[1:3]),
    )
    pasted, side = pictures["and visible"], pictures["combined"].shape[-1]
    seen = torch.nn.functional.interpolate(pictures["masked"].float(), size=side, mode="nearest-exact")
    there = seen.abs().amax(dim=1, keepdim=True) > 0
    assert torch.equal(torch.where(there, seen, pictures["combined"]), pasted)

    for valid in (None, torch.ones(len(views["image"]), *views["target"].shape[-2:], dtype=torch.bool)):
        objective.zero_grad()
        losses = objective({**views, "valid": valid})
        check("loss", losses["total"])
        check("loss_low", losses["low"])
        check("loss_high", losses["high"])
        losses["total"].backward()
        ours = dict(objective.named_parameters())
        norms = out["grad_norms"]
        assert set(norms) == set(layout), "every trained tensor of the reference has a counterpart"
        assert {name for name, _ in layout.values()} == set(ours)
        for key, (name, _) in layout.items():
            grad = ours[name].grad
            close(grad.norm(), norms[key], f"{case}: gradient norm of {key}")
            # Most norms are far below 1: also relative to themselves.
            scale = max(norms[key].item(), 1e-3)
            assert abs(grad.norm().item() - norms[key].item()) / scale < 2e-3, key
            if key == "patch_embed.proj.weight":
                check("grad_patch_embed_weight", grad)
            if key == "mask_token":
                check("grad_mask_token", grad)
    checked |= {"grad_norms"}
    assert out["grad_none"] == ["mask_token_decoder"]
    assert set(out["grad_none"]) <= set(UNUSED)
    assert set(out) - checked == {"grad_none"}, "every tensor of the file was compared"


def vit(reference):
    objective, _ = build(reference, "A_default_mse", reference["inputs"]["imgs"].shape[-1])
    return objective.encoder


def same_gsd(images, gsd):
    return torch.full((len(images),), float(gsd))


IMAGES = r"(?:_(\d+)px)?_res(\d+)"  # how the file names the size of images, if not the usual, and their GSD


def images_of(reference, size, gsd):
    """Images of the size that a tensor's name gives, and their GSD, all the same."""
    images = reference["inputs"]["imgs"] if size is None else reference["K_knn_feats"][f"imgs{size}"]
    return images, same_gsd(images, gsd)


def test_no_other_tensor_is_in_the_file(reference):
    known = {"meta", "inputs", *CASES, "K_knn_feats", "V_models_vit", "P_pos_embed"}
    assert set(reference) == known
    assert all(re.fullmatch(rf"knn_cls{IMAGES}|imgs\d+", name) for name in reference["K_knn_feats"])
    assert all(
        re.fullmatch(
            rf"(cls_feat|tokens_prenorm|gp_feat|logits){IMAGES}|cls_feat_mixed|(cls|gp)_missing|cls_unexpected_n|"
            "head_state|gp_fc_norm",
            name,
        )
        for name in reference["V_models_vit"]
    )


def test_class_token_of_whole_images(reference):
    given, encoder = reference["K_knn_feats"], vit(reference)
    named = {name: match for name in given if (match := re.fullmatch(f"knn_cls{IMAGES}", name))}
    assert named
    with torch.no_grad():
        for name, match in named.items():
            close(encoder(*images_of(reference, *match.groups())).cls, given[name], name)


def test_evaluation_encoder(reference):
    given, inputs, encoder = reference["V_models_vit"], reference["inputs"], vit(reference)
    norm, head = given["gp_fc_norm"], given["head_state"]
    named = {
        name: match
        for name in given
        if (match := re.fullmatch(f"(cls_feat|tokens_prenorm|gp_feat|logits){IMAGES}", name))
    }
    assert {match[1] for match in named.values()} == {"cls_feat", "tokens_prenorm", "gp_feat", "logits"}
    with torch.no_grad():
        for name, match in named.items():
            taps = Taps(norm=encoder.norm)
            features = encoder(*images_of(reference, *match.groups()[1:]))
            taps.close()
            before = taps.into["norm"]
            pooled = F.layer_norm(
                before[:, 1:].mean(1),
                before.shape[-1:],
                norm["fc_norm.weight"],
                norm["fc_norm.bias"],
                encoder.norm.eps,
            )
            ours = {
                "cls_feat": features.cls,
                "tokens_prenorm": before,
                "gp_feat": pooled,
                "logits": F.linear(features.cls, head["head.weight"], head["head.bias"]),
            }
            close(ours[match[1]], given[name], name)
        close(encoder(inputs["imgs"], inputs["input_res"]).cls, given["cls_feat_mixed"], "mixed GSD")


def test_what_the_evaluation_encoder_leaves_behind(reference):
    """Their count of tensors that an encoder has no place for is ours of tensors that go elsewhere."""
    weights, given = reference["A_default_mse"]["state_dict"], reference["V_models_vit"]
    layout = scale_mae_layout(weights)
    elsewhere = [key for key in weights if key in layout and not layout[key][0].startswith("encoder.")]
    unused = [key for key in weights if key in UNUSED and key != "pos_embed"]  # a table that theirs still has
    assert len(elsewhere) + len(unused) == given["cls_unexpected_n"]
    assert set(given["cls_missing"]) == set(given["head_state"])
    assert set(given["gp_missing"]) == set(given["head_state"]) | set(given["gp_fc_norm"])


def test_positions(reference):
    given = reference["P_pos_embed"]
    (name,) = [name for name in given if name.startswith("dim")]
    dim, grid = (int(number) for number in re.fullmatch(r"dim(\d+)_grid(\d+)_res", name).groups())
    table = gsd_positions(grid, grid, dim, given[name])
    close(table[:, given["rows"]], given["values"], "values")
    assert ((table.double().abs().sum((1, 2)) - given["sum_abs"]).abs() / given["sum_abs"]).max() < 1e-7
