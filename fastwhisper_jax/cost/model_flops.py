"""The flops of a train step, computed from the sizes of its models.

They check the count in the compiled step. Only matrix products and convolutions are counted, with
two operations for a multiplication and an addition. Norms, GELU and softmax add a few hundredths of
a per cent.
"""

from typing import NamedTuple

from fastwhisper_jax.models.options import Rematerialise
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.task import Phase


class StepSizes(NamedTuple):
    """What determines the flops of a train step.

    Attributes:
        teacher, student: the models' sizes.
        shares_encoder: whether one run of one encoder serves both models.
        rematerialise: what the student's backward pass computes again.
        trains_encoder: whether the encoder is trained.
        trains_embedding: whether the token embedding is trained.
        reads_encoder_states: whether a cache holds what the student's encoder computes.
        reads_teacher_states: whether a cache holds what the teacher's decoder computes.
    """

    teacher: ModelDimensions
    student: ModelDimensions
    shares_encoder: bool
    rematerialise: Rematerialise
    trains_encoder: bool
    trains_embedding: bool
    reads_encoder_states: bool = False
    reads_teacher_states: bool = False


def encoder_flops(dims: ModelDimensions) -> int:
    """Flops of the encoder on one window."""
    positions, width = dims.n_audio_ctx, dims.n_state
    convolutions = 6 * width * (dims.n_mels * dims.n_frames + width * positions)
    layer = _block(positions, width, dims.n_audio_mlp) + _attention(positions, positions, width)
    return convolutions + dims.n_audio_layer * layer


def decoder_flops(dims: ModelDimensions, tokens: int) -> int:
    """Flops of the decoder on T target tokens and their audio, without the logits."""
    return dims.n_text_layer * (_decoder_layer(dims, tokens) + _audio_projections(dims))


def vocabulary_flops(dims: ModelDimensions, tokens: int) -> int:
    """Flops of the logits of T tokens."""
    return 2 * tokens * dims.n_state * dims.n_vocab


def train_step_flops(sizes: StepSizes, phase: Phase, rows: int, tokens: int) -> int:
    """Flops of an update on `rows` utterances of T tokens.

    The backward pass of a trained product costs twice its forward pass: one product for the
    gradient of its input and one for that of its weight. A frozen encoder's output needs no
    gradient.

    Args:
        sizes: the models' sizes, and which parts are trained.
        phase: which teachers run.
        rows: B, the global batch.
        tokens: T.
    """
    teacher, student, trains_encoder = sizes.teacher, sizes.student, sizes.trains_encoder
    layers = student.n_text_layer
    total = layers * 3 * _decoder_layer(student, tokens)
    total += layers * _audio_projections(student) * (3 if trains_encoder else 2)
    total += vocabulary_flops(student, tokens) * (3 if sizes.trains_embedding else 2)
    if not sizes.reads_encoder_states:
        total += encoder_flops(student) * (3 if trains_encoder else 1)
    if phase.runs_teacher:
        total += vocabulary_flops(teacher, tokens)
        if not sizes.reads_teacher_states:
            total += decoder_flops(teacher, tokens)
            total += 0 if sizes.shares_encoder else encoder_flops(teacher)
    if phase.runs_self_teacher:
        total += decoder_flops(student, tokens) + vocabulary_flops(student, tokens)
        total += encoder_flops(student) if trains_encoder else 0
    total += _recomputed(sizes, tokens)
    return rows * total


def _recomputed(sizes: StepSizes, tokens: int) -> int:
    """Flops that the student's backward pass computes again, per utterance."""
    dims, rematerialise, trains_encoder = sizes.student, sizes.rematerialise, sizes.trains_encoder
    if rematerialise == "everything":
        return decoder_flops(dims, tokens) + (encoder_flops(dims) if trains_encoder else 0)
    if rematerialise == "all_but_projections":
        width, positions = dims.n_state, dims.n_audio_ctx
        attended = _attention(tokens, tokens, width) + _attention(tokens, positions, width)
        audio = dims.n_audio_layer * _attention(positions, positions, width)
        return dims.n_text_layer * attended + (audio if trains_encoder else 0)
    return 0


def _block(positions: int, width: int, mlp_width: int) -> int:
    """Flops of the four attention projections and the two of the MLP."""
    return positions * width * (8 * width + 4 * mlp_width)


def _attention(queries: int, keys: int, width: int) -> int:
    return 4 * queries * keys * width


def _decoder_layer(dims: ModelDimensions, tokens: int) -> int:
    """Flops of a decoder layer, without the keys and values of the audio."""
    width = dims.n_state
    own = _block(tokens, width, dims.n_text_mlp) + _attention(tokens, tokens, width)
    return own + 4 * tokens * width**2 + _attention(tokens, dims.n_audio_ctx, width)


def _audio_projections(dims: ModelDimensions) -> int:
    return 4 * dims.n_audio_ctx * dims.n_state**2
