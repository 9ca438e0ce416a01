"""A tiny random Whisper as a Hugging Face folder, every leaf of it different."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from fastwhisper_jax.interop import names
from fastwhisper_jax.interop.configs import SIZES
from fastwhisper_jax.models.dimensions import ModelDimensions

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|transcribe|>",
    "<|notimestamps|>",
)


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
def params(dims):
    generator = np.random.default_rng(0)
    flat = {
        path: generator.normal(scale=0.3, size=shape).astype(np.float32)
        for path, shape in names.param_shapes(dims).items()
    }
    return traverse_util.unflatten_dict(flat, sep="/")


@pytest.fixture
def teacher_folder(dims, params, tmp_path) -> Path:
    """What a published Whisper's folder holds, as a fresh copy that a test may damage."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    end_of_text = 257
    tokens = {
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "decoder_start_token_id": end_of_text + 1,
    }
    config = {
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "architectures": ["WhisperForConditionalGeneration"],
        "num_hidden_layers": dims.n_audio_layer,
        "torch_dtype": "float16",
        "transformers_version": "4.27.0",
        **{theirs: getattr(dims, ours) for ours, theirs in SIZES},
        **tokens,
    }
    generation_config = {
        "alignment_heads": [[1, 0], [2, 1], [3, 0], [3, 1]],
        "suppress_tokens": [1, 2],
        "max_length": dims.n_text_ctx,
        **tokens,
    }
    preprocessor_config = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": dims.n_mels,
        "chunk_length": 2,
        "hop_length": 160,
        "n_fft": 400,
    }
    tokenizer_config = {
        "tokenizer_class": "WhisperTokenizer",
        **{f"{kind}_token": "<|endoftext|>" for kind in ("bos", "eos", "unk", "pad")},
    }
    for name, content in {
        "config.json": config,
        "generation_config.json": generation_config,
        "preprocessor_config.json": preprocessor_config,
        "tokenizer_config.json": tokenizer_config,
    }.items():
        (folder / name).write_text(json.dumps(content))
    _tiny_tokenizer().save(str(folder / "tokenizer.json"))
    tensors = dict(names.tensors_from_params(params, dims))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _tiny_tokenizer() -> Tokenizer:
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*characters, "he"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer
