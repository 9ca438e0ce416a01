"""Operations of a train step from the sizes of its models: what a compiled one must agree with.

Matrix products and convolutions alone, two operations a multiplication and addition; norms, GELU
and softmax are some hundredths of a per cent.
"""

from typing import NamedTuple

from fastwhisper_jax.models.options import Rematerialise
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.task import Phase


class StepSizes(NamedTuple):
    """What the flops of a train step follow from.

    Attributes:
        teacher, student: sizes.
        shares_encoder: one encoder serves both models.
        rematerialise: what the student's backward pass computes again.
        trains_encoder, trains_embedding: these parts are not frozen.
    """

    teacher: ModelDimensions
    student: ModelDimensions
    shares_encoder: bool
    rematerialise: Rematerialise
    trains_encoder: bool
    trains_embedding: bool


def encoder_flops(dims: ModelDimensions) -> int:
    """One window through the encoder."""
    positions, width = dims.n_audio_ctx, dims.n_state
    convolutions = 6 * width * (dims.n_mels * dims.n_frames + width * positions)
    layer = _block(positions, width, dims.n_audio_mlp) + _attention(positions, positions, width)
    return convolutions + dims.n_audio_layer * layer


def decoder_flops(dims: ModelDimensions, tokens: int) -> int:
    """T target tokens and their audio through the decoder, without the vocabulary."""
    return dims.n_text_layer * (_decoder_layer(dims, tokens) + _audio_projections(dims))


def vocabulary_flops(dims: ModelDimensions, tokens: int) -> int:
    """Logits of T tokens."""
    return 2 * tokens * dims.n_state * dims.n_vocab


def train_step_flops(sizes: StepSizes, phase: Phase, rows: int, tokens: int) -> int:
    """An update on `rows` utterances of T tokens, all computed in the step (nothing cached).

    A trained product costs twice as much again backwards: a gradient for its input and one for
    its weight. The encoder's output needs none where the encoder is frozen.

    Args:
        sizes: models, and which of their parts are trained.
        phase: which teachers are run.
        rows: B, the global batch.
        tokens: T.
    """
    teacher, student, trains_encoder = sizes.teacher, sizes.student, sizes.trains_encoder
    layers = student.n_text_layer
    total = layers * 3 * _decoder_layer(student, tokens)
    total += layers * _audio_projections(student) * (3 if trains_encoder else 2)
    total += vocabulary_flops(student, tokens) * (3 if sizes.trains_embedding else 2)
    if not sizes.shares_encoder:
        total += encoder_flops(student) * (3 if trains_encoder else 1)
    if sizes.shares_encoder or phase.runs_teacher:
        total += encoder_flops(teacher)
    if phase.runs_teacher:
        total += decoder_flops(teacher, tokens) + vocabulary_flops(teacher, tokens)
    if phase.runs_self_teacher:
        total += decoder_flops(student, tokens) + vocabulary_flops(student, tokens)
        total += encoder_flops(student) if trains_encoder else 0
    total += _recomputed(sizes, tokens)
    return rows * total


def _recomputed(sizes: StepSizes, tokens: int) -> int:
    """What the backward pass of the student makes again of one utterance."""
    dims, kept, trains_encoder = sizes.student, sizes.rematerialise, sizes.trains_encoder
    if kept == "everything":
        return decoder_flops(dims, tokens) + (encoder_flops(dims) if trains_encoder else 0)
    if kept == "all_but_projections":
        width, positions = dims.n_state, dims.n_audio_ctx
        attended = _attention(tokens, tokens, width) + _attention(tokens, positions, width)
        audio = dims.n_audio_layer * _attention(positions, positions, width)
        return dims.n_text_layer * attended + (audio if trains_encoder else 0)
    return 0


def _block(positions: int, width: int, mlp_width: int) -> int:
    """Four projections of the width and the two of the MLP."""
    return positions * width * (8 * width + 4 * mlp_width)


def _attention(queries: int, keys: int, width: int) -> int:
    return 4 * queries * keys * width


def _decoder_layer(dims: ModelDimensions, tokens: int) -> int:
    """Everything but the audio's keys and values."""
    width = dims.n_state
    own = _block(tokens, width, dims.n_text_mlp) + _attention(tokens, tokens, width)
    return own + 4 * tokens * width**2 + _attention(tokens, dims.n_audio_ctx, width)


def _audio_projections(dims: ModelDimensions) -> int:
    return 4 * dims.n_audio_ctx * dims.n_state**2
