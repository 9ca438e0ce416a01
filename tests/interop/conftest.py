"""A tiny random Whisper as a Hugging Face folder, every leaf of it different."""

from pathlib import Path

import pytest

from fastwhisper_jax.models.dimensions import ModelDimensions


@pytest.fixture(scope="session")
def dims() -> ModelDimensions:
    """All sizes differ, except the two numbers of heads and what the context must be."""
    return ModelDimensions(
        n_mels=8,
        n_audio_ctx=100,
        n_audio_head=2,
        n_audio_layer=2,
        n_audio_mlp=32,
        n_vocab=264,
        n_text_ctx=20,
        n_text_head=2,
        n_text_layer=4,
        n_text_mlp=24,
        n_state=16,
    )


@pytest.fixture(scope="session")
def params(dims, make_params):
    return make_params(dims)


@pytest.fixture
def teacher_folder(dims, params, write_teacher, tmp_path) -> Path:
    """What a published Whisper's folder holds, as a fresh copy that a test may damage."""
    return write_teacher(tmp_path / "teacher", dims, params)
