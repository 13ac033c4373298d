from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from swath.reporting.rgb import display_bands
from swath.sensors.registry import get_sensor
from swath.training.monitoring.collapse import collapse_warning, feature_std, rankme
from swath.training.monitoring.image_grid import write_image_grid
from swath.training.monitoring.progress import Display, format_duration


def test_rankme_is_the_number_of_equal_directions() -> None:
    assert rankme(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert rankme(torch.cat([torch.eye(8)[:3]] * 5)) == pytest.approx(3, rel=1e-3)
    assert rankme(torch.ones(20, 8)) == pytest.approx(1, rel=1e-3)


def test_rankme_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    z = torch.randn(40, 6)
    p = np.linalg.svd(z.numpy(), compute_uv=False)
    p = p / p.sum() + 1e-7
    assert rankme(z) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_feature_std_is_one_for_spread_and_zero_for_collapsed_directions() -> None:
    torch.manual_seed(0)
    assert feature_std(torch.randn(2000, 64)) == pytest.approx(1, abs=0.02)
    assert feature_std(torch.ones(50, 64) * torch.rand(50, 1)) == pytest.approx(0, abs=1e-6)


def looks(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [
        {"step": step, "loss/total": loss, "rankme": rank, "feature_std": 1.0}
        for step, (loss, rank) in enumerate(values)
    ]


def test_collapse_is_warned_of_once_for_each_halving() -> None:
    falling = [(1.0, 5), (1.0, 40), (0.9, 38), (0.8, 15), (0.7, 14), (0.6, 8)]
    warned = [collapse_warning(looks(*falling[:n])) is not None for n in range(1, 7)]  # type: ignore[arg-type]
    assert warned == [False, False, False, True, False, True]
    assert "RankMe fell from 40 to 15 while the loss fell" in str(collapse_warning(looks(*falling[:4])))  # type: ignore[arg-type]


def test_features_that_shrink_with_a_rising_loss_are_no_collapse() -> None:
    assert collapse_warning(looks((1.0, 5), (1.0, 40), (2.0, 10))) is None


def test_pictures_become_a_grid_with_true_colors(tmp_path: Path) -> None:
    red = torch.full((2, 3, 8, 8), -2.5)
    red[:, 0] = 2.5
    write_image_grid(
        tmp_path / "x.png", {"input": red, "large": red.repeat(1, 1, 2, 2)}, get_sensor("rgb_aerial")
    )
    pixels = np.asarray(Image.open(tmp_path / "x.png"))
    assert pixels.shape == (18 + 2 * 20, 2 * 20 - 4, 3)
    assert pixels[25, 5].tolist() == pixels[25, 25].tolist() == [255, 0, 0]


def test_display_bands_are_those_that_look_red_green_and_blue() -> None:
    assert display_bands(get_sensor("sentinel2_l2a")) == [3, 2, 1]
    assert display_bands(get_sensor("sentinel1_grd")) == [0, 0, 0]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (273600, "3 d 4 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy", 10) as display:
        display.step(1, 0.1)
        display.step(5, 0.5)
        display.log(
            {"step": 5, "loss/total": 0.25, "lr": 1e-3, "data_wait_fraction": 0.02, "images_per_second": 12.0}
        )
    said = capsys.readouterr().err
    assert "step 5/10  total 0.2500  lr 1.00e-03  images/s 12.0  data wait 2%  left" in said
    assert "\x1b" not in said


def test_on_a_terminal_there_is_a_panel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Display("toy", 10) as display:
        display.step(1, 0.1)
        display.step(5, 0.5)
        display.log({"step": 5, "loss/total": 0.25, "rankme": 7.0})
    said = capsys.readouterr().err
    assert "step 5 of 10" in said
    assert "RankMe" in said


def test_a_silent_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy", None, active=False) as display:
        display.step(1, 0.5)
        display.log({"step": 1, "loss/total": 1.0}, last=True)
        display.print("hello")
    assert capsys.readouterr().err == ""
