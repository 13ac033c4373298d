from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import toy_objective as toy
from swath.errors import RecipeError
from swath.training.config.recipe import diff_recipes, load_recipe, parse_recipe

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = [
    path for path in sorted((ROOT / "configs").glob("*.yaml")) if not path.name.startswith("finetune_")
]


def refused(**sections: Any) -> str:
    """The message with which a recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(toy.recipe_data(**sections), where="my.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": {"epocs": 3}}, "my.yaml: training.epocs: unknown key. Did you mean 'epochs'?"),
        ({"optimzer": {"lr": 1.0}}, "my.yaml: optimzer: unknown key. Did you mean 'optimizer'?"),
        (
            {"training": {"steps": "many"}},
            "my.yaml: training.steps: should be a valid integer, but is 'many' (text)",
        ),
        (
            {"training": {"batch_size": True}},
            "my.yaml: training.batch_size: should be a valid integer, but is True (true/false)",
        ),
        (
            {"training": {"steps": 1.5}},
            "my.yaml: training.steps: should be a valid integer, but is 1.5 (a number)",
        ),
        ({"training": 5}, "my.yaml: training: should be a section with keys of its own, but is 5 (a number)"),
        (
            {"training": {"precision": "fp8"}},
            "my.yaml: training.precision: should be 'fp32', 'bf16' or 'fp16', but is 'fp8' (text)",
        ),
        ({"training": {"batch_size": 0}}, "my.yaml: training.batch_size: should be greater than 0, but is 0"),
        ({"data": {"size": "big"}}, "my.yaml: data.size: should be a valid integer or a valid tuple"),
        (
            {"training": {"steps": None}},
            "my.yaml: training: give exactly one of steps, epochs, cpu_minutes (none is)",
        ),
        (
            {"training": {"epochs": 3}},
            "exactly one of steps, epochs, cpu_minutes (steps and epochs are given)",
        ),
        (
            {"optimizer": {"blr": 0.1}},
            "my.yaml: optimizer: give exactly one of lr, blr (lr and blr are given)",
        ),
        (
            {"training": {"gradient_accumulation_steps": 3}},
            "training: batch_size 8 is not divisible by gradient_accumulation_steps 3",
        ),
        (
            {"encoder": {"name": "toy_encodr"}},
            "encoder.name: unknown encoder 'toy_encodr'. Did you mean 'toy_encoder'?",
        ),
        (
            {"encoder": {"name": "my.module:Net"}},
            "Recipes name registered things only, never Python paths.",
        ),
        (
            {"encoder": {"options": {"widht": 8}}},
            "encoder.options.widht: unknown option of toy_encoder. Did you mean 'width'?",
        ),
        (
            {"encoder": {"options": {"width": "8"}}},
            "encoder.options.width: should be a valid integer, but is '8' (text)",
        ),
        (
            {"encoder": {"options": {"bands": 3}}},
            "encoder.options.bands: follows from the sensor; leave it out",
        ),
        (
            {"objective": {"options": {"noize": 0.2}}},
            "objective.options.noize: unknown key. Did you mean 'noise'?",
        ),
        ({"objective": {"options": {"noise": "a lot"}}}, "objective.options.noise: should be a valid number"),
        (
            {"objective": {"name": "scale_mae", "options": {"crop_scale": [0.5, 0.2]}}},
            "objective.options: crop_scale must be 0 < low <= high <= 1",
        ),
        (
            {"data": {"gsd": 10.0}, "contract": {"gsd_mode": "relative"}},
            "contract.gsd_mode: is relative, but data.gsd is 10.0",
        ),
        (
            {"contract": {"reference_size": 64}},
            "contract.reference_size: has a meaning in relative mode only",
        ),
        ({"training": {"steps": None, "cpu_minutes": 5, "warmup_steps": 3}}, "use warmup_fraction"),
        (
            {"name": "no good"},
            "name: should be letters, digits, _, . and -, from a letter to a letter or digit, but is",
        ),
    ],
)
def test_messages(sections: dict[str, Any], message: str) -> None:
    assert message in refused(**sections)


def test_every_problem_is_listed_at_once() -> None:
    message = refused(training={"epocs": 3, "batch_size": "x"}, data={"gds": 1})
    assert message.startswith("my.yaml: 3 problems:")
    assert all(key in message for key in ("training.epocs", "training.batch_size", "data.gds"))


@pytest.mark.parametrize("name", ["x", "x1", "a.b-c_d"])
def test_short_and_dotted_names(name: str) -> None:
    assert parse_recipe({**toy.recipe_data(), "name": name}).name == name


def test_a_missing_section() -> None:
    data = toy.recipe_data()
    del data["encoder"]
    with pytest.raises(RecipeError, match="recipe: encoder: missing; add it"):
        parse_recipe(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("seed: 1\nseed: 2\n", "key given twice: seed"),
        ("just words", "a recipe is a mapping"),
    ],
)
def test_files_that_are_no_recipe(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe file"):
        load_recipe(tmp_path / "r.yaml")


def test_overrides_are_yaml_and_checked_like_the_file(recipe_file: Callable[..., Path]) -> None:
    path = recipe_file()
    changes = [
        "training.batch_size=4",
        "optimizer.lr=1e-4",
        "data.size=[8, 16]",
        "objective.options.noise=0.5",
    ]
    recipe = load_recipe(path, changes)
    assert (recipe.training.batch_size, recipe.optimizer.lr, recipe.data.size) == (4, 1e-4, (8, 16))
    assert recipe.objective.options["noise"] == 0.5
    with pytest.raises(RecipeError, match=r"training\.epocs: unknown key. Did you mean 'epochs'"):
        load_recipe(path, ["training.epocs=5"])
    with pytest.raises(RecipeError, match="write it as key=value"):
        load_recipe(path, ["training.steps"])
    with pytest.raises(RecipeError, match=r"--set seed\.x=1: seed is a value, not a section"):
        load_recipe(path, ["seed=3", "seed.x=1"])


def test_an_override_takes_the_place_of_its_group(recipe_file: Callable[..., Path]) -> None:
    recipe = load_recipe(
        recipe_file(), ["training.epochs=3", "optimizer.blr=0.1", "training.warmup_epochs=1"]
    )
    assert (recipe.training.steps, recipe.training.epochs) == (None, 3)
    assert recipe.learning_rate == pytest.approx(0.1 * 8 / 256)
    assert recipe.training.warmup_steps is None


def test_a_stored_recipe_reads_back_equal_and_tells_all_defaults(
    recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = load_recipe(recipe_file())
    recipe.write(tmp_path / "stored.yaml")
    assert load_recipe(tmp_path / "stored.yaml") == recipe
    assert load_recipe(tmp_path / "stored.yaml").hash() == recipe.hash()
    stored = yaml.safe_load((tmp_path / "stored.yaml").read_text())
    assert stored["objective"]["options"] == {
        "noise": 0.1,
        "explode_at": None,
        "poison": None,
        "stop_at": None,
    }
    assert stored["training"]["precision"] == "fp32"


def test_differences_name_what_matters_and_pass_over_what_does_not() -> None:
    old = parse_recipe(toy.recipe_data())
    new = parse_recipe(toy.recipe_data(seed=2, training={"keep": 9, "log_every": 3}))
    assert diff_recipes(old, new) == ["seed: 0 in the run, 2 now"]


def test_a_sensor_file_may_lie_beside_the_recipe(recipe_file: Callable[..., Path]) -> None:
    path = recipe_file(sensor="mine.yaml")
    (path.parent / "mine.yaml").write_text("name: mine\nbands: [{name: a, unit: DN, mean: 1, std: 1}]\n")
    assert load_recipe(path).sensor == str(path.parent / "mine.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_named_after_their_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_the_published_recipe_is_the_published_one() -> None:
    recipe = load_recipe(ROOT / "configs" / "scale_mae_vitl_fmow.yaml")
    assert recipe.learning_rate == pytest.approx(1.5e-4)
    assert recipe.training.epochs == 800
    options = recipe.objective.options
    assert (options["high_pass"], options["low_pass"], options["high_loss"]) == (7, None, "l2")


def test_every_key_is_explained() -> None:
    """The docstrings are what the reference pages show: a key without a word would be a riddle there."""
    from swath.training.config import recipe as module

    sections = [module.DataConfig, module.ContractConfig, module.OptimizerConfig, module.TrainingConfig]
    for section in sections:
        for key in set(section.model_fields) - {"name", "layout"}:
            assert re.search(rf"\b{key}\b", section.__doc__ or ""), f"{section.__name__}.{key}"
