"""Every weight that a task trains gets a gradient: distributed training would wait for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swath.encoders import create_model
from swath.encoders.pyramid import build_pyramid
from swath.models.contract import Contract
from swath.tasks.lora import LoRAConfig, add_lora
from swath.tasks.model import build_task
from swath.tasks.protocol import Task, tasks

ENCODERS: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 16, "embed_dim": 16, "depth": 4, "heads": 2},
    "swin": {"embed_dim": 8, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 4},
    "resnet_nano": {},
}
TASKS = [
    ("segment", {"head": "upernet"}),
    ("segment", {"head": "fpn"}),
    ("segment", {"head": "linear"}),
    ("change", {"head": "bit"}),
    ("change", {"head": "bit", "aux_weight": 0.0}),
    ("change", {"head": "upernet"}),
    ("detect", {"head": "faster_rcnn", "roi_hidden_dim": 16, "anchor_scale": 4}),
    ("detect", {"head": "fcos", "head_width": 64}),
    ("detect", {"head": "oriented_rcnn", "roi_hidden_dim": 16, "anchor_scale": 4, "max_proposals": 100}),
]


def built(encoder: str, kind: str, options: dict[str, Any]) -> Task:
    torch.manual_seed(0)
    if kind == "detect":
        options = {"head_width": 32, **options}
    config = tasks.get(kind).config.model_validate({"head_width": 8, **options, "classes": ("a", "b")})
    return build_task(
        kind, create_model(encoder, bands=3, **ENCODERS[encoder]), config, Contract.of("rgb_aerial")
    )


def views(kind: str) -> dict[str, Any]:
    shape = (2, 2, 3, 64, 64) if kind == "change" else (2, 3, 64, 64)
    batch: dict[str, Any] = {"image": torch.randn(shape), "gsd": torch.ones(2), "sensor": "rgb_aerial"}
    if kind == "detect":
        box = torch.tensor([[10.0, 10, 34, 34], [40.0, 20, 56, 36]])
        oriented = torch.tensor([[22.0, 22, 24, 24, 0], [48.0, 28, 16, 16, 0]])
        both = {"bbox_xyxy": [box] * 2, "obb": [oriented] * 2, "label": [torch.tensor([0, 1])] * 2}
        return batch | both | {"key": torch.arange(2)}
    return batch | {"mask": torch.randint(0, 2, (2, 64, 64), dtype=torch.uint8)}


def without_gradient(task: Task, kind: str) -> list[str]:
    task.train()(views(kind))["total"].backward()
    return [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize(("kind", "options"), TASKS, ids=lambda x: x if isinstance(x, str) else x["head"])
def test_whatever_is_trained_gets_a_gradient(encoder: str, kind: str, options: dict[str, Any]) -> None:
    task = built(encoder, kind, options)
    assert without_gradient(task, kind) == []
    trained = [name for name, p in task.encoder.named_parameters() if p.requires_grad]
    assert len(trained) > 0.5 * len(list(task.encoder.parameters()))


def test_bit_sees_all_blocks_of_a_transformer_and_three_stages_of_a_cnn() -> None:
    blocks = built("vit", "change", {"head": "bit"}).encoder.blocks
    assert all(p.requires_grad for p in blocks.parameters())
    stages = built("resnet_nano", "change", {"head": "bit"}).encoder
    frozen = {name for name, p in stages.named_parameters() if not p.requires_grad}
    assert any("layer4" in name for name in frozen)
    assert not any("layer3" in name for name in frozen)


def test_lora_of_a_cnn_leaves_out_what_bit_does_not_see() -> None:
    task = built("resnet_nano", "change", {"head": "bit"})
    chosen = add_lora(task.encoder, LoRAConfig())
    assert chosen
    assert not any("layer4" in name for name in chosen)
    assert without_gradient(task, "change") == []


def test_looking_for_gradients_changes_nothing_else() -> None:
    encoder = create_model("resnet_nano", bands=3)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    maps = build_pyramid(encoder).train()
    assert maps.train_what_shows([2], 3)
    assert maps.training
    assert encoder.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
