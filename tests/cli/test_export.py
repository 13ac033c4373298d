"""`swath export` on a saved model: what it writes and says."""

from __future__ import annotations

import sys
import warnings

import pytest
import timm
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from swath.cli.main import build_app, run
from swath.encoders import create_model
from swath.errors import SwathError
from swath.models import Contract, load_model, save_model


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    options = {"bands": 3, "embed_dim": 32, "depth": 1, "heads": 2, "patch_size": 8}
    return save_model(
        tmp_path / "model",
        encoder_name="vit",
        encoder_options=options,
        encoder=create_model("vit", **options),
        contract=Contract.of("rgb_aerial", gsd_range=(0.3, 2.0)),
    )


def export(*arguments):
    return CliRunner().invoke(build_app(), ["export", *map(str, arguments)])


def printed(said, first):
    """The program that it prints at its end."""
    assert said.exit_code == 0, said.output
    return said.output[said.output.index(first) :]


def test_a_saved_model_in_timm(folder, tmp_path):
    out = tmp_path / "weights.safetensors"
    said = export(folder, "--to", "timm", "--size", 32, "--gsd", 0.5, "--out", out)
    program = printed(said, "from safetensors")
    assert "not in it: scale: positions are a table for one GSD of 0.5" in said.output
    found: dict[str, torch.nn.Module] = {}
    exec(program, {"timm": timm, "load_file": load_file}, found)  # the lines that it prints work
    model = load_model(folder)
    image = torch.rand(2, 3, 32, 32) * 255
    batch = model.contract.normalize({"image": image, "gsd": torch.full((2,), 0.5)})
    with torch.no_grad():
        theirs = found["network"].eval()(batch["image"])
    torch.testing.assert_close(theirs, model.embed(image, gsd=0.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("to", "name", "first"),
    [
        ("onnx", "a.onnx", "import onnxruntime"),
        ("torch", "a.pt2", "import torch"),
        ("hub", "a", "import swath"),
    ],
)
def test_what_it_prints_runs_and_answers_as_the_model(to, name, first, folder, tmp_path):
    pytest.importorskip("onnxruntime" if to == "onnx" else "torch")
    said = export(folder, "--to", to, "--out", tmp_path / name)
    program = printed(said, first)
    image, gsd = torch.rand(3, 3, 24, 40) * 255, torch.tensor([0.3, 0.5, 2.0])
    found = {"images": image, "gsd": gsd}
    if to == "onnx":
        found = {key: value.numpy() for key, value in found.items()}
    exec(program, found)
    answer = found["model"].embed(image, gsd=gsd) if to == "hub" else torch.as_tensor(found["embedding"])
    torch.testing.assert_close(answer, load_model(folder).embed(image, gsd=gsd), rtol=1e-4, atol=1e-5)
    if to != "hub":
        assert "checked: answers as the model does, to " in said.output
        assert "not in it: the contract's checks" in said.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--to", "onx", "--out", "a.onnx"], "Did you mean 'onnx'"),
        (["--to", "onnx", "--out", "a.pt"], "an ONNX file is called .onnx"),
        (
            ["--to", "hub", "--embeddings-only", "--out", "a"],
            "embeddings_only is for the formats onnx and torch",
        ),
        (["--to", "torch", "--size", "20", "--out", "a.pt2"], "no multiple of 8; 16 are"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    arguments, problem, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    said = export(folder, *arguments)
    assert said.exit_code != 0
    assert isinstance(said.exception, SwathError)
    assert problem in str(said.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_path_that_is_no_model(tmp_path):
    said = export(tmp_path / "nothing", "--to", "onnx", "--out", tmp_path / "a.onnx")
    assert "there is no such model directory" in str(said.exception)


def test_a_warning_is_a_sentence_without_a_line_of_code(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "weights.safetensors"
    words = ["swath", "export", str(folder), "--size", "32", "--gsd", "9", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    shown_as_usual: list[object] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda *warning: shown_as_usual.append(warning)
        with pytest.raises(SystemExit) as left:
            run()
        assert left.value.code == 0
        said = capsys.readouterr().err
        assert said.startswith("warning: images of GSD 9 m lie outside the 0.3 to 2 m that this model was")
        assert ".py" not in said
        warnings.warn("of somebody else", stacklevel=1)
        assert len(shown_as_usual) == 1
