"""Overrides from the command line, and differences between recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swath.errors import RecipeError
from swath.renames import current_key
from swath.yaml_io import yaml_value


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _override(data: dict[str, Any], text: str, kind: str = "recipe") -> None:
    """Apply one ``a.b=value`` to nested `data` in place."""
    key, equals, value = text.partition("=")
    key = current_key(key.strip(), kind)
    if not equals or not all(key.split(".")):
        raise RecipeError(f"--set {text}: write it as key=value, such as training.epochs=50")
    for group in GROUPS:
        for other in group if key in group else ():
            section, _, name = other.partition(".")
            if isinstance(data.get(section), dict):
                data[section].pop(name, None)
    *parents, last = key.split(".")
    place = data
    for done, part in enumerate(parents):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise RecipeError(f"--set {text}: {'.'.join(parents[: done + 1])} is a value, not a section")
    place[last] = yaml_value(value, f"--set {text}")


GROUPS = (
    ("training.steps", "training.epochs", "training.cpu_minutes"),
    ("optimizer.lr", "optimizer.blr"),
    ("training.warmup_steps", "training.warmup_epochs", "training.warmup_fraction"),
)


# Changing these while a run is under way changes neither its weights nor its losses.
FREE_KEYS = frozenset({
    "description", "training.workers", "training.checkpoint_every", "training.keep_checkpoints",
    "training.log_every",
    "training.images_every", "training.monitor_every", "training.monitor_images", "training.tensorboard",
    "model.path",
})  # fmt: skip
