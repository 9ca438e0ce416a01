"""Writes a small untrained Whisper: random weights, and a tokenizer for the demo's sentences.

It is an English-only Whisper with a window of a few seconds. Its special tokens have the same order
as in every Whisper's vocabulary. transformers can read its folder too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.export.student_configs import student_config, student_preprocessor_config
from fastwhisper_jax.models.whisper import hf_names
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.forward import init_params

# Number of tokens that are longer than one byte.
MERGES = 8
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
BYTES = 256
# The window is 4 s. The decoder is deeper than the encoder, so that a student has layers to save.
DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=200,
    n_audio_head=4,
    n_audio_layer=2,
    n_audio_mlp=512,
    n_vocab=BYTES + MERGES + len(SPECIAL_TOKENS),
    n_text_ctx=64,
    n_text_head=4,
    n_text_layer=6,
    n_text_mlp=256,
    n_state=128,
)


def write_untrained(folder: Path, texts: Sequence[str], seed: int) -> None:
    """Writes an untrained Whisper as a Hugging Face folder.

    Args:
        folder: the folder to make.
        texts: texts to train the tokenizer on.
        seed: seed for the weights.
    """
    tokenizer = _tokenizer(texts)
    ids = tokenizer.get_vocab()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in _json_files(ids).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    params = jax.device_get(init_params(DIMS, jax.random.key(seed)))
    tensors = dict(hf_names.tensors_from_params(params, DIMS))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _tokenizer(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BYTES + MERGES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {text}" for text in texts], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def _json_files(ids: dict[str, int]) -> dict[str, Any]:
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    tokens = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
    }
    config = {
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "num_hidden_layers": DIMS.n_audio_layer,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "begin_suppress_tokens": [end],
        "suppress_tokens": None,
    }
    return {
        "config.json": student_config(
            config | tokens, DIMS, Windows((DIMS.context_seconds,)), "float32"
        ),
        "generation_config.json": {
            "begin_suppress_tokens": [end],
            "is_multilingual": False,
            "max_length": DIMS.n_text_ctx,
            "no_timestamps_token_id": ids["<|notimestamps|>"],
            "prev_sot_token_id": ids["<|startofprev|>"],
            "return_timestamps": False,
            **tokens,
        },
        "preprocessor_config.json": student_preprocessor_config({}, DIMS),
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer",
            "add_prefix_space": False,
            "model_max_length": DIMS.n_text_ctx,
            **{f"{kind}_token": "<|endoftext|>" for kind in ("bos", "eos", "unk", "pad")},
        },
    }
