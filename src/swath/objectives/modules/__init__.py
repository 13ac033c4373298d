"""Parts that methods share: masking, decoders, EMA."""
