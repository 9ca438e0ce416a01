"""Whisper as pure functions of parameters and arrays: `encode`, `decode`, `logits`."""

from fastwhisper_jax.models.whisper.forward import Params, decode, encode, init_params, logits

__all__ = ["Params", "decode", "encode", "init_params", "logits"]
