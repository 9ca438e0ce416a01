"""Reads the configs of a Hugging Face Whisper folder, and checks what our model needs of them."""

import json
import math
from pathlib import Path
from typing import Any

from fastwhisper_jax.audio.windows import Windows, check_windows
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

# The content of a JSON config file.
HFConfig = dict[str, Any]

# (our name of a size, the key of config.json that holds it)
SIZES = (
    ("n_mels", "num_mel_bins"),
    ("n_audio_ctx", "max_source_positions"),
    ("n_audio_head", "encoder_attention_heads"),
    ("n_audio_layer", "encoder_layers"),
    ("n_audio_mlp", "encoder_ffn_dim"),
    ("n_vocab", "vocab_size"),
    ("n_text_ctx", "max_target_positions"),
    ("n_text_head", "decoder_attention_heads"),
    ("n_text_layer", "decoder_layers"),
    ("n_text_mlp", "decoder_ffn_dim"),
    ("n_state", "d_model"),
)
# The key of config.json that names a student's windows. Other programs ignore it.
WINDOWS = "fastwhisper_windows"
# Our forward pass assumes these values. They are also the defaults of transformers.
_ASSUMED = (
    ("activation_function", "gelu"),
    ("scale_embedding", False),
    ("tie_word_embeddings", True),
)
# Folders older than generation_config.json have these keys in config.json.
_GENERATION_KEYS = (
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_decoder_ids",
    "max_length",
    "pad_token_id",
    "suppress_tokens",
)


def read_json(path: Path) -> HFConfig:
    """Reads a file that holds one JSON object.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def read_model_config(folder: Path) -> tuple[HFConfig, ModelDimensions]:
    """Reads config.json of a Whisper folder.

    Args:
        folder: a Hugging Face folder.

    Returns:
        The content of config.json, and the sizes of the model.

    Raises:
        InputError: there is no config.json, the model is not a Whisper that our forward pass
            computes, or sizes are missing, not positive integers, or do not fit each other.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} has no config.json; give a Hugging Face Whisper folder")
    config = read_json(path)
    if config.get("model_type") != "whisper":
        raise InputError(
            f"{path} says model_type {config.get('model_type')!r}, must be 'whisper';"
            " give a Hugging Face Whisper folder"
        )
    faults = [
        f"{key} is {config[key]!r}, must be {value!r}"
        for key, value in _ASSUMED
        if key in config and config[key] != value
    ]
    if faults:
        raise InputError(f"{path} describes another Whisper than OpenAI's: {'; '.join(faults)}")
    sizes: dict[str, Any] = {ours: config.get(theirs) for ours, theirs in SIZES}
    faults = [
        f"{theirs} is {sizes[ours]!r}, must be a positive integer"
        for ours, theirs in SIZES
        if type(sizes[ours]) is not int or sizes[ours] < 1
    ] or [
        f"d_model {sizes['n_state']} does not divide over {sizes[heads]} {stack} heads"
        for stack, heads in (("encoder", "n_audio_head"), ("decoder", "n_text_head"))
        if sizes["n_state"] % sizes[heads]
    ]
    if faults:
        raise InputError(f"{path} cannot be used: {'; '.join(faults)}")
    return config, ModelDimensions(**sizes)


def read_windows(folder: Path, config: HFConfig, dims: ModelDimensions) -> Windows:
    """Returns the lengths of audio that a model hears: all 30 s, unless config.json names others.

    Args:
        folder: the folder of the model, for errors.
        config: its config.json.
        dims: its sizes.

    Raises:
        InputError: the windows that config.json names are not possible.
    """
    named = config.get(WINDOWS)
    if named is None:
        return Windows((dims.context_seconds,))
    named = named if isinstance(named, dict) else {}
    lengths, margin = named.get("seconds"), named.get("margin_seconds", 0.0)
    where = f"{folder / 'config.json'}: {WINDOWS}.seconds"
    if not isinstance(lengths, list) or not all(map(_is_length, [*lengths, margin])):
        raise InputError(f"{where}={lengths!r} and its margin must be numbers; export it again")
    check_windows(lengths, dims.context_seconds, where, "the encoder's")
    return Windows(tuple(map(float, lengths)), float(margin))


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def read_generation_config(folder: Path, config: HFConfig, dims: ModelDimensions) -> HFConfig:
    """Reads generation_config.json, or the same keys of config.json in older folders.

    Accepts alignment heads that the model does not have, because published students inherited such
    heads from their teachers. Code that uses alignment heads must check them.

    Args:
        folder: the folder of the model.
        config: its config.json.
        dims: its sizes.

    Raises:
        InputError: a value that we need is missing or cannot be used. The message lists all faults.
    """
    path = folder / "generation_config.json"
    if path.is_file():
        generation_config = read_json(path)
    else:
        path = folder / "config.json"
        generation_config = {key: config[key] for key in _GENERATION_KEYS if key in config}
    faults = _generation_faults(generation_config, dims.n_vocab)
    if faults:
        raise InputError(f"{path} cannot be used: {'; '.join(faults)}; correct it")
    return generation_config


def _generation_faults(generation_config: HFConfig, n_vocab: int) -> list[str]:
    def is_token(value: Any) -> bool:
        return type(value) is int and 0 <= value < n_vocab

    faults = []
    end_of_text = generation_config.get("eos_token_id")
    ends = end_of_text if isinstance(end_of_text, list) else [end_of_text]
    if not ends or not all(map(is_token, ends)):
        faults.append(
            f"eos_token_id is {end_of_text!r}, must be a token, 0 to {n_vocab - 1}, or several"
        )
    for key in ("suppress_tokens", "begin_suppress_tokens"):
        tokens = generation_config.get(key) or []
        tokens = tokens if isinstance(tokens, list) else [tokens]
        wrong = [token for token in tokens if not is_token(token)]
        if wrong:
            faults.append(f"{key} holds {wrong[0]!r}, must hold tokens, 0 to {n_vocab - 1}")
    previous = generation_config.get("prev_sot_token_id")
    if previous is not None and not is_token(previous):
        faults.append(f"prev_sot_token_id is {previous!r}, must be a token, 0 to {n_vocab - 1}")
    heads = generation_config.get("alignment_heads") or []
    if not isinstance(heads, list) or not all(map(_is_pair, heads)):
        faults.append("alignment_heads must hold pairs of integers, [layer, head]")
    return faults


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == [int, int]


def read_preprocessor_config(folder: Path) -> HFConfig:
    """Reads the settings of the feature extractor.

    Returns:
        The content of preprocessor_config.json; or the same settings from processor_config.json,
        which transformers 5 writes instead; or an empty dict if the folder has neither.
    """
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        return dict(read_json(folder / "processor_config.json").get("feature_extractor") or {})
    return {}
