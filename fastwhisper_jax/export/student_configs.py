"""Makes the JSON config files of an export: those of the base model, with the student's values.

The base model is the model whose layers the student was initialised from, usually its teacher.
"""

import dataclasses

from fastwhisper_jax.audio.constants import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_configs import SIZES, WINDOWS, HFConfig
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.timestamp_labels import TRAINED_WITH_TIMESTAMPS

# What notes for the user call the base model.
_BASE = "the model that this one was initialised from"

# Keys that describe the base model's file, or name code that it would run.
_NOT_INHERITED = frozenset(
    {
        WINDOWS,
        "_name_or_path",
        "auto_map",
        "dtype",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
    }
)


def student_config(base: HFConfig, dims: ModelDimensions, windows: Windows, dtype: str) -> HFConfig:
    """Makes config.json: the base model's, with the student's sizes, windows and dtype.

    Args:
        base: the base model's config.json.
        dims: the student's sizes.
        windows: the lengths of audio that the student hears.
        dtype: dtype of the student's weights. It is written as `torch_dtype`, which every
            transformers since 4.0 reads.
    """
    config = _inherited(base)
    config["model_type"] = "whisper"
    config["architectures"] = ["WhisperForConditionalGeneration"]
    config.update({theirs: getattr(dims, ours) for ours, theirs in SIZES})
    if "num_hidden_layers" in config:
        config["num_hidden_layers"] = dims.n_audio_layer
    config["torch_dtype"] = dtype
    if windows != Windows((dims.context_seconds,)):
        config[WINDOWS] = dataclasses.asdict(windows)
    return config


def student_alignment_heads(
    base: HFConfig, decoder_layers: tuple[int, ...], dims: ModelDimensions
) -> tuple[list[list[int]], str]:
    """Returns the cross-attention heads of the student that give the times of words.

    These are the base model's alignment heads in the layers that the student kept. Heads that no
    layer has are left out. If none remains, all heads of the upper half of the student's layers
    are used, which is the default of openai-whisper and CTranslate2. (Without valid heads,
    transformers and faster-whisper fail with an IndexError on word timestamps.)

    Args:
        base: the base model's generation_config.json.
        decoder_layers: the base model's decoder layers that the student kept, in the student's
            order.
        dims: the student's sizes. Its layers have as many heads as the base model's.

    Returns:
        At least one [layer, head] pair, and a note for the user. The note is empty if all pairs
        come from the base model and all of the base model's pairs are valid.
    """
    named = base.get("alignment_heads") or ()
    invalid = [[layer, head] for layer, head in named if head not in range(dims.n_text_head)]
    heads = [
        [decoder_layers.index(layer), head]
        for layer, head in named
        if layer in decoder_layers and [layer, head] not in invalid
    ]
    notes = []
    if invalid:
        notes.append(
            f"the generation_config.json of {_BASE} names alignment heads {invalid}, [layer,"
            f" head], but its layers have {dims.n_text_head} heads, counted from 0: those are left"
            " out"
        )
    if not heads:
        upper = range(dims.n_text_layer // 2, dims.n_text_layer)
        heads = [[layer, head] for layer in upper for head in range(dims.n_text_head)]
        reason = (
            f"none of the alignment heads of {_BASE} is in a decoder layer that was kept"
            if named
            else f"the generation_config.json of {_BASE} names no alignment heads"
        )
        notes.append(
            f"{reason}: word timestamps use all heads of the upper layers (openai-whisper's"
            " default) and may be less exact"
        )
    return heads, "; ".join(notes)


def student_generation_config(
    base: HFConfig, alignment_heads: list[list[int]], trained_with_timestamps: bool
) -> HFConfig:
    """Makes generation_config.json: the base model's, with the student's alignment heads.

    Args:
        base: the base model's generation_config.json.
        alignment_heads: see `student_alignment_heads`.
        trained_with_timestamps: whether the student's labels held timestamps.
    """
    own = {"alignment_heads": alignment_heads, TRAINED_WITH_TIMESTAMPS: trained_with_timestamps}
    return _inherited(base) | own


def student_preprocessor_config(base: HFConfig, dims: ModelDimensions) -> HFConfig:
    """Makes preprocessor_config.json: the base model's, with the length of the student's window.

    Args:
        base: the base model's preprocessor_config.json; empty if it has none.
        dims: the student's sizes.

    Raises:
        InputError: the context is not a whole number of seconds, as the file format requires.
    """
    if dims.context_seconds % 1:
        raise InputError(
            f"a context of {dims.context_seconds} s cannot be written to preprocessor_config.json,"
            " which holds whole seconds; train with a longest window of whole seconds"
        )
    standard = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": WINDOW_SAMPLES,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    own = {
        "feature_size": dims.n_mels,
        "chunk_length": int(dims.context_seconds),
        "n_samples": dims.n_samples,
        "nb_max_frames": dims.n_frames,
    }
    return {**standard, **_inherited(base), **own}


def _inherited(base: HFConfig) -> HFConfig:
    return {key: value for key, value in base.items() if key not in _NOT_INHERITED}
