"""The JSON files of an export: the base model's own, changed where the student differs.

The base model is what the student was cut from, as a rule its teacher.
"""

from fastwhisper_jax.audio.constants import FRAMES_PER_SECOND, SAMPLE_RATE_HZ
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_configs import SIZES, Config
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.timestamp_labels import TRAINED_WITH_TIMESTAMPS

# What notes for the user call the base model.
_BASE = "the model that this one was cut from"

# Keys that say where or how the base model's file was written, and code that it would run.
_NOT_INHERITED = frozenset(
    {
        "_name_or_path",
        "auto_map",
        "dtype",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
    }
)


def student_config(base: Config, dims: ModelDimensions, dtype: str) -> Config:
    """config.json of the student: the base model's with the student's sizes and dtype.

    Args:
        base: the base model's config.json.
        dims: the student's sizes.
        dtype: of the student's weights.

    Returns:
        Content of config.json. The dtype stands under `torch_dtype`, which every transformers
        since 4.0 reads.
    """
    config = {key: value for key, value in base.items() if key not in _NOT_INHERITED}
    config["model_type"] = "whisper"
    config["architectures"] = ["WhisperForConditionalGeneration"]
    config.update({theirs: getattr(dims, ours) for ours, theirs in SIZES})
    if "num_hidden_layers" in config:
        config["num_hidden_layers"] = dims.n_audio_layer
    config["torch_dtype"] = dtype
    return config


def student_alignment_heads(
    base: Config, decoder_layers: tuple[int, ...], dims: ModelDimensions
) -> tuple[list[list[int]], str]:
    """The [layer, head] pairs of the student whose cross-attention gives the times of words.

    The base model's pairs, on the student's layers. A layer of its that the student has not got
    takes its pairs with it, and pairs whose head no layer has are left out. Where none remains
    (word timestamps of transformers and of faster-whisper would index what is not there) they are
    all heads of the upper half of the layers, which is openai-whisper's and CTranslate2's own
    default.

    Args:
        base: the base model's generation_config.json.
        decoder_layers: the base model's decoder layers that the student kept, in its own order.
        dims: the student's sizes; its layers have as many heads as the base model's.

    Returns:
        The pairs, at least one, and a note for the user, empty where they are the base model's.
    """
    named = base.get("alignment_heads") or ()
    strange = [[layer, head] for layer, head in named if head not in range(dims.n_text_head)]
    heads = [
        [decoder_layers.index(layer), head]
        for layer, head in named
        if layer in decoder_layers and [layer, head] not in strange
    ]
    notes = []
    if strange:
        notes.append(
            f"the generation_config.json of {_BASE} names alignment heads {strange}, [layer,"
            f" head], but its layers have {dims.n_text_head} heads, counted from 0: those are left"
            " out"
        )
    if not heads:
        upper = range(dims.n_text_layer // 2, dims.n_text_layer)
        heads = [[layer, head] for layer in upper for head in range(dims.n_text_head)]
        lacks = (
            f"none of the alignment heads of {_BASE} lies in a decoder layer that was kept"
            if named
            else f"the generation_config.json of {_BASE} names no alignment heads"
        )
        notes.append(
            f"{lacks}: word timestamps rest on all heads of the upper layers (openai-whisper's"
            " default) and may be less exact"
        )
    return heads, "; ".join(notes)


def student_generation_config(
    base: Config, alignment_heads: list[list[int]], trained_with_timestamps: bool
) -> Config:
    """generation_config.json of the student: the base model's, with the student's alignment heads.

    Args:
        base: the base model's generation_config.json.
        alignment_heads: see `student_alignment_heads`.
        trained_with_timestamps: whether the student's labels said when words are spoken.
    """
    config = {key: value for key, value in base.items() if key not in _NOT_INHERITED}
    own = {"alignment_heads": alignment_heads, TRAINED_WITH_TIMESTAMPS: trained_with_timestamps}
    return config | own


def student_preprocessor_config(base: Config, dims: ModelDimensions) -> Config:
    """preprocessor_config.json of the student: log-mel windows of its own length.

    Args:
        base: the base model's preprocessor_config.json; empty for one that has none.
        dims: the student's sizes.

    Raises:
        InputError: the context is not a whole number of seconds, which the file format asks for.
    """
    if dims.n_frames % FRAMES_PER_SECOND:
        raise InputError(
            f"a context of {dims.context_seconds} s cannot be written to preprocessor_config.json,"
            " which holds whole seconds; train with student.context_seconds a whole number"
        )
    standard = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": SAMPLE_RATE_HZ // FRAMES_PER_SECOND,
        "n_fft": 400,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    own = {
        "feature_size": dims.n_mels,
        "chunk_length": dims.n_frames // FRAMES_PER_SECOND,
        "n_samples": dims.n_samples,
        "nb_max_frames": dims.n_frames,
    }
    inherited = {key: value for key, value in base.items() if key not in _NOT_INHERITED}
    return {**standard, **inherited, **own}
