"""The JSON files of an export: the teacher's own, changed where the student differs."""

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.interop.configs import SIZES, Config
from fastwhisper_jax.models.dimensions import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, ModelDimensions

# Keys that say where or how the teacher's file was written, and code that it would run.
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


def student_config(teacher: Config, dims: ModelDimensions) -> Config:
    """config.json of the student: the teacher's with the student's sizes, weights in float32.

    Args:
        teacher: the teacher's config.json.
        dims: the student's sizes.

    Returns:
        Content of config.json. The dtype stands under `torch_dtype`, which every transformers
        since 4.0 reads.
    """
    config = {key: value for key, value in teacher.items() if key not in _NOT_INHERITED}
    config["model_type"] = "whisper"
    config["architectures"] = ["WhisperForConditionalGeneration"]
    config.update({theirs: getattr(dims, ours) for ours, theirs in SIZES})
    if "num_hidden_layers" in config:
        config["num_hidden_layers"] = dims.n_audio_layer
    config["torch_dtype"] = "float32"
    return config


def student_generation_config(teacher: Config, decoder_layers: tuple[int, ...]) -> Config:
    """generation_config.json of the student, its alignment heads on the layers that were kept.

    `alignment_heads` lists the [layer, head] pairs whose cross-attention follows time; word
    timestamps index the student's layers with them. Pairs of layers that the student has not got
    are left out, and so is the key when none remains.

    Args:
        teacher: the teacher's generation_config.json.
        decoder_layers: the teacher's decoder layers that the student kept, in its own order.
    """
    config = {key: value for key, value in teacher.items() if key not in _NOT_INHERITED}
    heads = [
        [decoder_layers.index(layer), head]
        for layer, head in config.pop("alignment_heads", None) or ()
        if layer in decoder_layers
    ]
    return {**config, "alignment_heads": heads} if heads else config


def student_preprocessor_config(teacher: Config, dims: ModelDimensions) -> Config:
    """preprocessor_config.json of the student: log-mel windows of its own length.

    Args:
        teacher: the teacher's preprocessor_config.json; empty for one that has none.
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
    inherited = {key: value for key, value in teacher.items() if key not in _NOT_INHERITED}
    return {**standard, **inherited, **own}
