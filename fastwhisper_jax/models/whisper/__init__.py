"""Whisper as pure functions of parameters and arrays: `encode`, `decode`, `logits`."""

from fastwhisper_jax.models.whisper.forward import (
    Params,
    StackStates,
    decode,
    encode,
    init_params,
    logits,
    run_decoder,
    run_encoder,
)

__all__ = [
    "Params",
    "StackStates",
    "decode",
    "encode",
    "init_params",
    "logits",
    "run_decoder",
    "run_encoder",
]
