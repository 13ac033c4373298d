"""Equality with the released CSMAE code, to 1e-5, in every tensor of every reference file."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch

from helpers.reference_files import names, not_compared
from swath.encoders import vit
from swath.encoders.multi_sensor import MultiSensorViT
from swath.encoders.positions import gsd_positions
from swath.models.importers.csmae import csmae_layout, csmae_options
from swath.objectives.csmae import CSMAE
from swath.objectives.csmae_config import CSMAEConfig
from swath.objectives.losses.contrastive import nt_xent, paired_softplus
from swath.objectives.modules import cross_sensor_decoder as cross_decoder
from swath.training.budget import Budget
from swath.training.config.sections import TrainingConfig

TOLERANCE = 1e-5
FILES = names(
    "csmae_*_tiny.pt", [f"csmae_{v}_tiny" for v in ("sesd", "secd", "cesd", "cecd", "cecd_repoyaml")]
)
SENSORS = ("s1", "s2")
# (their masking, their reconstruction strategy) -> ours
RECONSTRUCTION = {"disjoint": "source", "identical": "opposite"}
_ROUTE = r"s[12]_from_s[12]"
COMPARED = [
    r"config|state_dict|x|noise_s[12]|ids_(shuffle|restore)_s[12]|grad_norm|no_grad_params",
    rf"train\.(mask_s[12]|mask_{_ROUTE}|pred_{_ROUTE}|tokens_s[12]|feats_s[12])",
    rf"loss\.(total|reconstruction_loss|reconstruction_loss_{_ROUTE}|mim_loss|mim_temp[\d.]+)",
    rf"loss\.(mde_func_positive|mde_as_intended_in_total|alt\.(mse_normpix|l1|l1_normpix)\.{_ROUTE})",
    r"eval\.(feat_s[12](_natural_order|_l2)?|shuffle_vs_natural_maxabs)",
    rf"(alt|intended)\.\w+_mask\.\w+_rec\.(total|mim_loss|reconstruction_loss(_{_ROUTE})?)",
    rf"(alt|intended)\.\w+_mask\.\w+_rec\.mask_(s[12]|{_ROUTE})",
    r"adamw\.(loss_before_each_step_and_after_3|param_sum_after_3|param_abs_sum_after_3)",
    r"official_errors",  # what the released code could not do at all
]


@pytest.fixture(scope="module", params=FILES)
def reference(request, parity_dir):
    return torch.load(parity_dir / f"{request.param}.pt", weights_only=True)


def close(ours, theirs, what, tolerance=TOLERANCE):
    """Within `tolerance`, of the largest number of theirs where that is above 1."""
    theirs = torch.as_tensor(theirs).double()
    ours = torch.as_tensor(ours).detach().double().reshape(theirs.shape)
    difference = (ours - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())
    assert difference <= tolerance, f"{what} differs by {difference:.2e}"


def build(reference, **options):
    """Our model with their weights."""
    theirs = reference["config"]
    encoder_options, objective_options = csmae_options(
        reference["state_dict"], *SENSORS,
        heads=theirs["num_heads"], decoder_heads=theirs["decoder_num_heads"],
    )  # fmt: skip
    assert encoder_options["specific_depth"] == theirs["multi_sensor_encoder_depth"]
    assert encoder_options["common_depth"] == theirs["cross_sensor_encoder_depth"]
    assert encoder_options["mlp_ratio"] == theirs["mlp_ratio"]
    assert encoder_options["pooling"] == {"avg": "mean"}[theirs["global_pool"]]
    assert (theirs["encoder_ln_eps"], theirs["decoder_ln_eps"]) == (vit.EPS, cross_decoder.EPS)
    assert objective_options["decoder"] == theirs["decoding_strategy"]
    defaults = {
        "mask_ratio": theirs["mask_ratio"],
        "temperature": theirs["mim_temp"],
        "norm_pix": theirs["norm_pix_loss"],
    }
    objective = CSMAE(
        MultiSensorViT(**encoder_options), CSMAEConfig(**(objective_options | defaults | options))
    )
    layout = csmae_layout(reference["state_dict"], *SENSORS)
    objective.load_state_dict({ours: reference["state_dict"][key] for key, ours in layout.items()})
    return objective, layout


def views(reference):
    x = reference["x"]
    radar = reference["state_dict"]["backbone.patch_embed.proj.weight"].shape[1]
    images = {"s1": x[:, -radar:], "s2": x[:, :-radar]}
    return {
        "image": images,
        "gsd": dict.fromkeys(SENSORS, torch.ones(len(x))),
        "valid": {},
        "noise": {name: reference[f"noise_{name}"] for name in SENSORS},
    }


def test_every_tensor_of_the_file_is_compared(reference):
    assert not not_compared(reference, COMPARED)


def test_position_tables(reference):
    for key in (
        "backbone.pos_embed",
        *(k for k in reference["state_dict"] if k.endswith("decoder_pos_embed")),
    ):
        table = reference["state_dict"][key]
        side = round((table.shape[1] - 1) ** 0.5)
        close(gsd_positions(side, side, table.shape[2], torch.ones(1), centered=True), table, key)


def test_masks_and_tokens(reference):
    objective, _ = build(reference)
    shown = views(reference)
    splits = objective.split(shown["noise"])
    for name in SENSORS:
        assert torch.equal(splits[name].shuffle, reference[f"ids_shuffle_{name}"])
        assert torch.equal(splits[name].restore, reference[f"ids_restore_{name}"])
        close(splits[name].mask.float(), reference[f"train.mask_{name}"], "mask")
    keep = {name: splits[name].keep for name in SENSORS}
    tokens = objective.encoder.encode(shown["image"], shown["gsd"], keep)
    for name in SENSORS:
        close(tokens[name], reference[f"train.tokens_{name}"], f"tokens of {name}")
        close(objective.encoder.head(tokens[name]), reference[f"train.feats_{name}"], f"features of {name}")


def test_reconstructions(reference):
    objective, _ = build(reference)
    for (source, target), pixels in objective.predictions(views(reference)).items():
        close(pixels, reference[f"train.pred_{target}_from_{source}"], f"{target} from {source}")


def test_scored_patches(reference):
    objective, _ = build(reference)
    shown = views(reference)
    splits = objective.split(shown["noise"])
    count = shown["noise"]["s1"].shape[1]
    for route in objective.routes(splits, dict.fromkeys(SENSORS, (1, count))):
        if route.source != route.target:
            mask = torch.zeros(len(route.scored), count).scatter(1, route.scored, 1.0)
            close(mask, reference[f"train.mask_{route.target}_from_{route.source}"], "scored patches")


def test_losses_and_gradients(reference):
    objective, layout = build(reference)
    losses = objective(views(reference))
    for target in SENSORS:
        for source in SENSORS:
            name = f"reconstruction_loss_{target}_from_{source}"
            close(losses[f"{target}_from_{source}"], reference[f"loss.{name}"], name)
    close(losses["mim"], reference["loss.mim_loss"], "mim")
    close(losses["total"], reference["loss.total"], "total")
    parts = sum(losses[f"{t}_from_{s}"] for t in SENSORS for s in SENSORS)
    close(parts, reference["loss.reconstruction_loss"], "sum of reconstruction losses")
    losses["total"].backward()
    ours = dict(objective.named_parameters())
    assert len(ours) == len(reference["grad_norm"])
    assert set(reference["no_grad_params"]) == set(reference["state_dict"]) - set(layout)
    for key, norm in reference["grad_norm"].items():
        close(ours[layout[key]].grad.norm(), norm, f"gradient of {key}")


CASES = [
    ("alt", "random", "identical"),
    ("alt", "identical", "disjoint"),
    ("intended", "identical", "identical"),
    ("intended", "disjoint", "identical"),
    ("intended", "disjoint", "disjoint"),
]


def test_no_other_masking_is_in_the_file(reference):
    found = {
        match.groups() for key in reference if (match := re.match(r"(\w+)\.(\w+)_mask\.(\w+)_rec\.", key))
    }
    assert found == set(CASES)


@pytest.mark.parametrize(("origin", "masking", "strategy"), CASES)
def test_other_maskings(reference, origin, masking, strategy):
    objective, _ = build(reference, masking=masking, reconstruction=RECONSTRUCTION[strategy])
    shown = views(reference)
    losses = objective(shown)
    prefix = f"{origin}.{masking}_mask.{strategy}_rec"
    for target in SENSORS:
        for source in SENSORS:
            name = f"{prefix}.reconstruction_loss_{target}_from_{source}"
            close(losses[f"{target}_from_{source}"], reference[name], name)
    parts = sum(losses[f"{t}_from_{s}"] for t in SENSORS for s in SENSORS)
    close(parts, reference[f"{prefix}.reconstruction_loss"], f"{prefix}.reconstruction_loss")
    close(losses["mim"], reference[f"{prefix}.mim_loss"], f"{prefix}.mim_loss")
    close(losses["total"], reference[f"{prefix}.total"], f"{prefix}.total")
    splits = objective.split(shown["noise"])
    count = shown["noise"]["s1"].shape[1]
    for route in objective.routes(splits, dict.fromkeys(SENSORS, (1, count))):
        mask = torch.zeros(len(route.scored), count).scatter(1, route.scored, 1.0)
        suffix = route.target if route.source == route.target else f"{route.target}_from_{route.source}"
        close(mask, reference[f"{prefix}.mask_{suffix}"], f"{prefix}.mask_{suffix}")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_normpix", {"norm_pix": True}),
        ("l1", {"pixel_loss": "l1"}),
        ("l1_normpix", {"pixel_loss": "l1", "norm_pix": True}),
    ],
)
def test_other_pixel_losses(reference, name, options):
    objective, _ = build(reference, **options)
    losses = objective(views(reference))
    prefix = f"loss.alt.{name}."
    pairs = [key.removeprefix(prefix) for key in reference if key.startswith(prefix)]
    assert pairs
    for pair in pairs:
        close(losses[pair], reference[prefix + pair], f"{name}.{pair}")


def test_losses_between_sensors(reference):
    first, second = reference["train.feats_s1"], reference["train.feats_s2"]
    name = "loss.mim_temp"
    temperatures = [float(key.removeprefix(name)) for key in reference if key.startswith(name)]
    assert temperatures
    for temperature in temperatures:
        ours = nt_xent(first, second, temperature)
        # They subtract exp(1 / t) from the sum of a row that has it in: at small temperatures most digits of
        # what is left are lost. Ours leaves that entry out, and is held to theirs up to those digits.
        unit = torch.nn.functional.normalize(torch.cat([first, second]).double(), dim=1)
        rows = (unit @ unit.T / temperature).exp()
        left = rows.sum(1) - rows.diagonal()
        lost = float((rows.sum(1) / left).max()) * torch.finfo(torch.float32).eps
        close(ours, reference[f"loss.mim_temp{temperature}"], f"NT-Xent at {temperature}", TOLERANCE + lost)
        partner = torch.arange(len(rows)).roll(len(first))
        exact = -(rows[torch.arange(len(rows)), partner] / left).log().mean()
        close(ours, exact, f"NT-Xent at {temperature} in double precision")
    close(-paired_softplus(first, second), reference["loss.mde_func_positive"], "MDE")
    close(paired_softplus(first, second), reference["loss.mde_as_intended_in_total"], "MDE as it enters")
    objective, _ = build(reference, mde_weight=1.0)
    losses = objective(views(reference))
    total = reference["loss.total"] + reference["loss.mde_as_intended_in_total"]
    close(losses["total"], total, "total with MDE")


def test_features_of_whole_images(reference):
    objective, _ = build(reference)
    objective.eval()
    shown = views(reference)
    with torch.no_grad():
        for name in SENSORS:  # each sensor alone
            pooled = objective.encoder(shown["image"][name], shown["gsd"][name], name).pooled
            close(pooled, reference[f"eval.feat_{name}"], f"features of {name}, they shuffle")
            assert reference["eval.shuffle_vs_natural_maxabs"] < TOLERANCE  # which is no difference
            close(pooled, reference[f"eval.feat_{name}_natural_order"], f"features of {name}")
            unit = torch.nn.functional.normalize(pooled, dim=1)
            close(unit, reference[f"eval.feat_{name}_l2"], f"unit features of {name}")


def test_training_steps(reference):
    """AdamW as they use it: weight decay on everything that is trained."""
    objective, layout = build(reference)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3, weight_decay=0.05, betas=(0.9, 0.95))
    theirs = torch.as_tensor(reference["adamw.loss_before_each_step_and_after_3"])
    history = []
    for step in range(len(theirs)):
        losses = objective(views(reference))
        history.append(losses["total"].item())
        if step < len(theirs) - 1:
            optimizer.zero_grad()
            losses["total"].backward()
            optimizer.step()
    close(torch.tensor(history), theirs, "losses over three steps", 2e-5)
    ours = dict(objective.named_parameters())
    for key, place in layout.items():
        weight = ours[place].detach().double()
        tolerance = TOLERANCE * max(1.0, float(reference["adamw.param_abs_sum_after_3"][key]))
        if key.endswith("qkv.bias"):
            # Softmax does not feel the keys' bias: its gradient is rounding alone, and Adam makes whole steps
            # of that, in theirs as in ours.
            tolerance = 3 * 1e-3 * len(weight) / 3
        for ours_sum, name in ((weight.sum(), "param_sum"), (weight.abs().sum(), "param_abs_sum")):
            difference = abs(float(ours_sum) - float(reference[f"adamw.{name}_after_3"][key]))
            assert difference <= tolerance, f"{name} of {key} differs by {difference:.2e}"


def test_learning_rates(parity_dir):
    reference = torch.load(parity_dir / "csmae_lr_schedule.pt", weights_only=True)
    config = TrainingConfig(
        epochs=int(reference["epochs"]),
        warmup_epochs=float(reference["warmup_epochs"]),
        schedule="cosine_bolts",
    )
    budget = Budget(config, int(reference["steps_per_epoch"]))
    ours = [float(reference["base_lr"]) * budget.rate(step + 1, 0.0) for step in range(len(reference["lr"]))]
    close(torch.tensor(ours, dtype=torch.float64), reference["lr"], "learning rates", 1e-12)


@pytest.mark.parametrize(
    "variant", ["sesd_10_2", "secd_10_2", "cesd_0_12", "cecd_0_12", "cesd_12_0", "cecd_12_0"]
)
def test_keys_and_shapes_of_the_full_models(parity_dir, variant):
    listed = json.loads((parity_dir / "csmae_keys_full.json").read_text())[variant]
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in listed.items()}
        encoder_options, objective_options = csmae_options(weights, *SENSORS)
        objective = CSMAE(MultiSensorViT(**encoder_options), CSMAEConfig(**objective_options))
    assert encoder_options["heads"] == 12
    specific, common = (int(number) for number in variant.split("_")[1:])
    assert (encoder_options["specific_depth"], encoder_options["common_depth"]) == (specific, common)
    ours = {key: list(value.shape) for key, value in objective.state_dict().items()}
    assert ours == {place: listed[key] for key, place in csmae_layout(weights, *SENSORS).items()}


def test_a_foreign_key_is_refused():
    from swath.errors import CheckpointError

    with pytest.raises(CheckpointError, match="head"):
        csmae_layout({"backbone.head.weight": SimpleNamespace()}, *SENSORS)
