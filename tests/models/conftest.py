"""A tiny Whisper with random weights, made without compiling anything."""

import jax
import numpy as np
import pytest

from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


@pytest.fixture(scope="session")
def dims() -> ModelDimensions:
    """The two stacks differ in depth, heads and MLP width."""
    return ModelDimensions(
        n_mels=8,
        n_audio_ctx=20,
        n_audio_head=2,
        n_audio_layer=2,
        n_audio_mlp=40,
        n_vocab=61,
        n_text_ctx=12,
        n_text_head=4,
        n_text_layer=3,
        n_text_mlp=24,
        n_state=16,
    )


@pytest.fixture(scope="session")
def params(dims):
    """Float32, with biases, scales and positions that matter."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        noise = generator.normal(size=leaf.shape)
        if name == "kernel":
            noise = noise / np.sqrt(leaf.shape[-2])
        elif name in ("scale", "bias"):
            noise = (name == "scale") + 0.2 * noise
        return noise.astype(np.float32)

    shapes = jax.eval_shape(lambda: whisper.init_params(dims, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)
