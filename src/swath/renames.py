"""Old spellings in files that Swath wrote or was given earlier, and the names that they have now.

Only what is stored and read back is listed: recipes, model configurations, tables of pairs, catalogs,
suites. Reading goes through `current_names`; writers use new names only. Some hashes were taken over old
spellings (a recipe's hash, by which a run is resumed; the configuration hash of a protocol; the key of a
suite or a prediction that goes on): they are taken over `stored_names`, so that what was begun before a
renaming is still recognized.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

_log = logging.getLogger(__name__)
_reported: set[tuple[str, str]] = set()  # each file is reported once

# Options of tasks and of how their data are read: old name -> new name.
_TASK_OPTIONS: dict[str, dict[str, str]] = {
    "classify": {"smoothing": "label_smoothing", "mix": "mixup"},
    "segment": {"auxiliary": "aux_weight", "layers": "out_indices"},
    "change": {"auxiliary": "aux_weight", "layers": "out_indices", "match": "radiometric_match"},
    "detect": {
        "hidden": "roi_hidden_dim",
        "proposals": "max_proposals",
        "regions": "box_batch_size_per_image",
        "layers": "out_indices",
        "score": "score_threshold",
        "overlap": "nms_iou",
        "most": "max_detections",
        "window": "tile",
        "seam": "tile_overlap",
        "measure": "ap_metric",
    },
}
_COMMON_DATA = {"test_share": "test_fraction", "val_share": "val_fraction", "labels_share": "label_fraction"}
_CROPS = {
    "size": "crop_size",
    "scale": "scale_range",
    "crops": "crops_per_image",
    "focus": "foreground_fraction",
}
_MASKS = (
    _COMMON_DATA
    | _CROPS
    | {
        "colours": "colors",
        "ignore_colours": "ignore_colors",
        "ignore": "ignore_values",
        "align": "coregister",
    }
)
_IMAGES = {
    "fit": "resize_mode",
    "file": "file_column",
    "label": "label_column",
    "separator": "label_separator",
    "root": "image_root",
}
_TASK_DATA = {
    "classify": _COMMON_DATA | _IMAGES,
    "segment": _MASKS,
    "change": _MASKS,
    "detect": _COMMON_DATA
    | _CROPS
    | {
        "images": "image_dir",
        "fold": "split_field",
        "min_visible": "min_visibility",
        "boxes": "invalid_boxes",
    },
}
_TRAINING = {
    "optimiser": "optimizer",
    "optimiser.final_lr": "optimizer.min_lr_ratio",
    "optimiser.decay_all": "optimizer.decay_norm_and_bias",
    "training.accumulate": "training.gradient_accumulation_steps",
    "training.clip": "training.max_grad_norm",
    "training.find_unused": "training.find_unused_parameters",
    "training.keep": "training.keep_checkpoints",
    "training.pictures_every": "training.images_every",
}
_FINETUNING = {"select": "keep_weights", "scales": "test_scales", "patience": "early_stopping_patience"}
_MEAN_STD = {"moments": "mean_std"}


def _below(parent: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{parent}.{old}": f"{parent}.{new}" for old, new in names.items()}


# Kind of file -> old dotted key -> new dotted key. `*` stands for any key or any element of a list. Both
# sides have the same depth; parents are renamed by rows of their own and stand in a row's old key in their
# old spelling.
_CMID = {"focus": "focal_alpha", "focus_power": "focal_gamma", "centre_momentum": "center_momentum"}

KEYS: dict[str, dict[str, str]] = {
    "recipe": _TRAINING
    | _below(
        "data",
        _IMAGES | {"fold": "split", "where": "filter", "group": "hdf5_group", "align": "align_to_blocks"},
    )
    | _below("objective.options", _CMID),
    "options/cmid": _CMID,
    "config": {},
    "preprocessing": {"fit": "resize_mode"},  # of an archive: how its chips were made
    "pairs": {"fold": "split"},
    "metrics": {"data_wait": "data_wait_fraction"},
    "prediction": {"read_gsd": "target_gsd", "align": "coregister"},
    "catalog": {},
    "suite": {
        "sets": "datasets",
        "reference": "published",
        "protocols.knn.standardised": "protocols.knn.standardize",
    }
    | _below(
        "sets.*",
        {
            "where": "filter",
            "bank": "train_split",
            "queries": "test_split",
            "fold_column": "split_column",
            "share": "test_fraction",
            "separator": "label_separator",
            "reference": "published",
        },
    ),
}
for _task, _names in _TASK_OPTIONS.items():
    KEYS[f"options/{_task}"] = _names
    KEYS[f"finetune/{_task}"] = (
        _TRAINING | _FINETUNING | _below("task.options", _names) | _below("data", _TASK_DATA[_task])
    )

# Kind of file -> new dotted key -> old value -> new value.
VALUES: dict[str, dict[str, dict[Any, Any]]] = {
    "recipe": {
        "data.resize_mode": {"centre_crop": "center_crop"},
        "pooling": _MEAN_STD,
        "objective.options.embedding": _MEAN_STD,
    },
    "config": {"pooling": _MEAN_STD},
    "preprocessing": {"resize_mode": {"centre_crop": "center_crop"}},
    "options/cmid": {"embedding": _MEAN_STD},
    "options/unified": {"embedding": _MEAN_STD},
    "options/classify": {"pooling": _MEAN_STD},
    "options/change": {"radiometric_match": _MEAN_STD},
    "finetune/classify": {
        "data.resize_mode": {"centre_crop": "center_crop"},
        "task.options.pooling": _MEAN_STD,
    },
    "finetune/change": {"task.options.radiometric_match": _MEAN_STD},
    "finetune/detect": {"data.invalid_boxes": {"refuse": "error"}},
}


def current_names(data: Mapping[str, Any], kind: str, source: str | None) -> dict[str, Any]:
    """A copy of `data` under today's keys and values; what was renamed is logged in one line per file.

    Args:
        data: What was read, with plain dicts and lists inside.
        kind: A key of `KEYS`; of one that is not there nothing was renamed.
        source: Named in the log line, e.g. the file's name; None where old spellings are what is expected.

    Raises:
        ValueError: If an old key and its new name stand side by side.
    """
    found: dict[str, str] = {}
    renamed = _renamed(
        data, (), {tuple(o.split(".")): n.split(".")[-1] for o, n in KEYS.get(kind, {}).items()}, found
    )
    _replace_values(renamed, (), VALUES.get(kind, {}), found)
    if found and source is not None and (source, kind) not in _reported:
        _reported.add((source, kind))
        now = ", ".join(f"'{old}' is now '{new}'" for old, new in found.items())
        _log.warning("%s: %s (still read; will be refused from 0.3)", source, now)
    return dict(renamed)


def current_key(key: str, kind: str) -> str:
    """Today's spelling of a dotted key, as `--set` takes it."""
    parts = key.split(".")
    renamed = [
        next(
            (n.split(".")[-1] for o, n in KEYS.get(kind, {}).items() if o.split(".") == parts[: i + 1]),
            parts[i],
        )
        for i in range(len(parts))
    ]
    # A child's row names its parent in the old spelling; a key may come with the parent in the new one.
    for old, new in KEYS.get(kind, {}).items():
        if new.split(".")[:-1] == renamed[:-1] and old.split(".")[-1] == parts[-1]:
            renamed[-1] = new.split(".")[-1]
    return ".".join(renamed)


def stored_names(data: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The inverse of `current_names`, for hashes that were taken over old spellings."""
    copy = _renamed(data, (), {}, {})
    _replace_values(
        copy,
        (),
        {key: {new: old for old, new in table.items()} for key, table in VALUES.get(kind, {}).items()},
        {},
    )
    # A row's old key has its parents in their old spelling; on the way back they are in their new one.
    parents = {tuple(new.split(".")): old.split(".")[-1] for old, new in KEYS.get(kind, {}).items()}
    return dict(_renamed(copy, (), parents, {}))


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(path) == len(pattern) and all(p in ("*", key) for p, key in zip(pattern, path, strict=True))


def _renamed(
    value: Any, path: tuple[str, ...], rules: Mapping[tuple[str, ...], str], found: dict[str, str]
) -> Any:
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for key, inner in value.items():
            here = (*path, str(key))
            new = next((name for rule, name in rules.items() if _matches(here, rule)), key)
            if new != key:
                if new in value:
                    raise ValueError(
                        f"{'.'.join(here)} is the old name of {new}, which is there too: keep one"
                    )
                found[".".join(here)] = str(new)
            out[new] = _renamed(inner, here, rules, found)
        return out
    if isinstance(value, (list, tuple)):
        return [_renamed(inner, (*path, "*"), rules, found) for inner in value]
    return value


def _replace_values(
    value: Any, path: tuple[str, ...], tables: Mapping[str, Mapping[Any, Any]], found: dict[str, str]
) -> None:
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, dict):
        items = iter(list(value.items()))
    elif isinstance(value, list):
        items = iter(list(enumerate(value)))
    else:
        return
    for key, inner in items:
        here = (*path, "*" if isinstance(value, list) else str(key))
        for pattern, table in tables.items():
            if (
                _matches(here, tuple(pattern.split(".")))
                and isinstance(inner, (str, int, float))
                and inner in table
            ):
                found[f"{'.'.join(here)}: {inner}"] = str(table[inner])
                value[key] = table[inner]
        _replace_values(value[key], here, tables, found)
