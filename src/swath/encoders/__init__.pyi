from .check import check_encoder as check_encoder
from .protocol import Encoder as Encoder
from .protocol import EncoderFeatures as EncoderFeatures
from .protocol import create_model as create_model
from .protocol import list_models as list_models
from .protocol import register_encoder as register_encoder
from .pyramid import build_pyramid as build_pyramid

__all__ = [
    "Encoder",
    "EncoderFeatures",
    "build_pyramid",
    "check_encoder",
    "create_model",
    "list_models",
    "register_encoder",
]
