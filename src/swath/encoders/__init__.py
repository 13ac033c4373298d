"""Encoders: images, with their GSD and sensor, to features. One family a file, one small protocol."""

from swath.encoders.protocol import Encoder, EncoderFeatures, create_model, list_models, register_encoder

__all__ = ["Encoder", "EncoderFeatures", "create_model", "list_models", "register_encoder"]
