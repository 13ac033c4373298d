"""`swath export` on a saved model: what it writes and says."""

from __future__ import annotations

import timm
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from swath.cli.main import build_app
from swath.encoders import create_model
from swath.models import Contract, load_model, save_model


def test_a_saved_model_in_timm(tmp_path):
    torch.manual_seed(0)
    options = {"bands": 3, "embed_dim": 32, "depth": 1, "heads": 2, "patch_size": 8}
    folder = save_model(
        tmp_path / "model",
        encoder_name="vit",
        encoder_options=options,
        encoder=create_model("vit", **options),
        contract=Contract.of("rgb_aerial"),
    )
    out = tmp_path / "weights.safetensors"
    said = CliRunner().invoke(
        build_app(),
        ["export", str(folder), "--to", "timm", "--size", "32", "--gsd", "0.5", "--out", str(out)],
    )
    assert said.exit_code == 0, said.output
    assert "not in it: scale: positions are a table for one GSD of 0.5" in said.output
    program = said.output[said.output.index("from safetensors") :]
    found: dict[str, torch.nn.Module] = {}
    exec(program, {"timm": timm, "load_file": load_file}, found)  # the lines that it prints work
    model = load_model(folder)
    image = torch.rand(2, 3, 32, 32) * 255
    batch = model.contract.normalise({"image": image, "gsd": torch.full((2,), 0.5)})
    with torch.no_grad():
        theirs = found["network"].eval()(batch["image"])
    torch.testing.assert_close(theirs, model.embed(image, gsd=0.5), rtol=1e-4, atol=1e-5)
