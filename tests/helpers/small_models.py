"""A model small enough to be saved and loaded in every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from swath.encoders import create_model, register_encoder
from swath.encoders.vit import ViT
from swath.models import Contract, save_model

NAME = "vit_for_model_tests"
OPTIONS: dict[str, Any] = {"bands": 3, "embed_dim": 32, "depth": 2, "heads": 2, "patch_size": 8}

register_encoder(NAME)(ViT)


def small_encoder(**options: Any) -> nn.Module:
    return create_model(NAME, **(OPTIONS | options))


def save_small(path: Path, contract: Contract, encoder: nn.Module | None = None, **more: Any) -> Path:
    more = {"encoder_name": NAME, "encoder_options": OPTIONS, **more}
    return save_model(path, encoder=encoder or small_encoder(), contract=contract, **more)
