"""Sizes of the tiny models that the commands train and decode."""

import pytest

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


@pytest.fixture(scope="session")
def dims_with_timestamps():
    """Sizes of a tiny model. Its vocabulary is 262 tokens, then the timestamps of 30 s."""
    return ModelDimensions(
        n_mels=8,
        n_audio_ctx=1500,
        n_audio_head=2,
        n_audio_layer=1,
        n_audio_mlp=16,
        n_vocab=262 + 1501,
        n_text_ctx=32,
        n_text_head=2,
        n_text_layer=2,
        n_text_mlp=16,
        n_state=16,
    )
