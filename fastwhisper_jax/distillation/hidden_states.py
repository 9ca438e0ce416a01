"""Which hidden states of student and teacher a recipe compares, over which positions."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fastwhisper_jax.audio.constants import FRAMES_PER_POSITION, FRAMES_PER_SECOND
from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.pair import PairShapes, is_of_teacher
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.hidden_states import HiddenSums, hidden_distances, hidden_sums
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.partition import all_gather
from fastwhisper_jax.models.student import spread_layers
from fastwhisper_jax.models.whisper import StackStates
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.task import Batch, Params

# The student's parameters that map its states to the teacher's width. No model has them.
HIDDEN_MAPS = "hidden_maps"


class LayerPairs(NamedTuple):
    """The layers of one stack that are compared, in pairs, ascending by the student's layer.

    Attributes:
        student, teacher: a layer of each for every pair.
        ends_with_output: the last pair is the last layer of both. It is compared after the last
            LayerNorm, as it is read; all others are the residual stream after the layer.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    ends_with_output: bool


class Comparison(NamedTuple):
    """What a recipe compares.

    Attributes:
        pairs: by stack; none if the recipe compares nothing.
        margin_frames: mel frames after the speech that are compared in the encoder.
    """

    pairs: Mapping[str, LayerPairs]
    margin_frames: int


COMPARES_NOTHING = Comparison({}, 0)


def compared_stacks(config: Config) -> tuple[str, ...]:
    """The stacks whose hidden states a recipe compares: not an encoder that is frozen."""
    objective = config.objective
    if objective.hidden_weight.is_zero:
        return ()
    trains_encoder = "encoder" not in config.student.frozen
    return tuple(name for name in objective.hidden_stacks if name != "encoder" or trains_encoder)


def reads_labels(config: Config) -> bool:
    """Whether any term of a recipe's objective needs the text of its speech."""
    objective = config.objective
    is_zero = objective.teacher_weight.is_zero and objective.self_weight.is_zero
    return objective.ce_weight != 0 or not is_zero or compared_stacks(config) != ("encoder",)


def make_comparison(config: Config, models: PairShapes) -> Comparison:
    """Resolves the layers that a recipe compares.

    Raises:
        InputError: a layer does not exist, or the objective teaches nothing that is trained.
    """
    objective, frozen = config.objective, config.student.frozen
    stacks = compared_stacks(config)
    if not stacks and not objective.hidden_weight.is_zero:
        raise InputError(
            f"objective.hidden_stacks={objective.hidden_stacks} compares an encoder that "
            f"student.frozen={frozen} keeps as it is; train the encoder, or compare the decoder"
        )
    if not reads_labels(config) and "decoder" not in frozen:
        raise InputError(
            f"student.frozen={frozen} trains the decoder, but the objective compares hidden states "
            "of the encoder alone and nothing would teach the decoder; add decoder to "
            "student.frozen, or give another term a weight"
        )
    pairs = {name: _layer_pairs(name, config, models) for name in stacks}
    return Comparison(pairs, round(objective.hidden_margin_seconds * FRAMES_PER_SECOND))


def _layer_pairs(stack: str, config: Config, models: PairShapes) -> LayerPairs:
    spec = models.student
    ours, theirs = (_depth(stack, dims) for dims in (spec.dims, models.teacher_dims))
    named = (pair.split(":") for pair in config.objective.hidden_layers)
    pairs = sorted((int(i), int(j)) for name, i, j in named if name == stack)
    if absent := [f"{stack}:{i}:{j}" for i, j in pairs if i >= ours or j >= theirs]:
        raise InputError(
            f"objective.hidden_layers names {', '.join(absent)}: hidden states of layers that are "
            f"not there; the student's {stack} has layers 0 to {ours - 1}, the teacher's 0 to "
            f"{theirs - 1}; name some of those"
        )
    if not pairs:
        copied = spec.encoder_layers if stack == "encoder" else spec.decoder_layers
        teacher = copied if is_of_teacher(config) else spread_layers(ours, theirs)
        pairs = list(enumerate(teacher))
    student_layers, teacher_layers = zip(*pairs, strict=True)
    return LayerPairs(student_layers, teacher_layers, pairs[-1] == (ours - 1, theirs - 1))


def _depth(stack: str, dims: ModelDimensions) -> int:
    return dims.n_audio_layer if stack == "encoder" else dims.n_text_layer


def hidden_map_shapes(comparison: Comparison, models: PairShapes) -> Params:
    """The shapes of the linear maps (layers, D of the student, D of the teacher); {} for one width.

    They are trained with the student, and belong to no model.
    """
    widths = models.student.dims.n_state, models.teacher_dims.n_state
    if widths[0] == widths[1] or not comparison.pairs:
        return {}
    return {
        HIDDEN_MAPS: {
            stack: {"kernel": jax.ShapeDtypeStruct((len(pairs.student), *widths), jnp.float32)}
            for stack, pairs in comparison.pairs.items()
        }
    }


def init_hidden_maps(shapes: Params, seed: int) -> Params:
    """Random float32 maps on the host, which keep the mean square of what they map."""
    generator = np.random.default_rng(seed)

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        return (generator.normal(size=shape.shape) / np.sqrt(shape.shape[1])).astype(np.float32)

    maps: Params = jax.tree.map(draw, shapes)
    return maps


def compare_states(
    comparison: Comparison,
    maps: Params,
    batch: Batch,
    student: Mapping[str, StackStates],
    teacher: Mapping[str, StackStates],
    options: ModelOptions,
) -> HiddenSums:
    """Returns the distance between the states of two models on a batch, summed over its rows.

    The distance of a row is the sum over stacks of the mean over compared layers and positions. Its
    weight is its number of target tokens. So the sum divides by the number of targets, as every
    other term of the objective does.

    Args:
        comparison: what is compared.
        maps: the linear map of each compared layer, by stack; {} where the widths are equal.
        batch: label_mask (B, T), and speech_frames (B,) int32 if the encoder is compared.
        student, teacher: by stack. The teacher may have heard a longer window.
        options: where the maps are gathered.
    """
    row_weights = batch["label_mask"].sum(axis=1)
    sums = []
    for stack, pairs in comparison.pairs.items():
        kernel = None
        if maps:
            kernel = all_gather(maps[stack]["kernel"].astype(options.compute_dtype), options)
        distances = _stack_distances(pairs, student[stack], teacher[stack], kernel)
        if stack == "encoder":
            positions = distances.shape[1]
            mask = speech_mask(batch["speech_frames"] + comparison.margin_frames, positions)
        else:
            mask = token_mask(batch["label_mask"])
        sums.append(hidden_sums(distances, mask, row_weights))
    return HiddenSums(jnp.sum(jnp.stack([each.distance for each in sums])), sums[0].weight)


def _stack_distances(
    pairs: LayerPairs, student: StackStates, teacher: StackStates, kernel: jax.Array | None
) -> jax.Array:
    """The mean distance over the compared layers at each position of the student (B, S)."""
    positions = student.output.shape[1]
    teacher = jax.tree.map(lambda x: x[..., :positions, :], teacher)
    total, done = jnp.zeros(student.output.shape[:2], jnp.float32), 0
    student_parts = _parts(student, pairs.student, pairs.ends_with_output)
    teacher_parts = _parts(teacher, pairs.teacher, pairs.ends_with_output)
    for ours, theirs in zip(student_parts, teacher_parts, strict=True):
        if kernel is not None:
            part = kernel[done : done + len(ours)]
            ours = jnp.einsum("lbsd,lde->lbse", ours, part, preferred_element_type=jnp.float32)
        total, done = total + hidden_distances(ours, theirs), done + len(ours)
    return total / done


def _parts(states: StackStates, layers: tuple[int, ...], ends_with_output: bool) -> list[jax.Array]:
    """The states (layers, B, S, D) of compared layers. Joining its two parts would copy them."""
    assert states.layers is not None
    parts, inner = [], layers[:-1] if ends_with_output else layers
    if inner == tuple(range(len(inner))):
        parts.append(states.layers[: len(inner)])
    else:
        parts.append(states.layers[np.array(inner)])
    if ends_with_output:
        parts.append(states.output[None])
    return parts


def speech_mask(frames: Int[Array, " B"], positions: int) -> Float[Array, "B S"]:
    """Returns 1 for each encoder position that begins within the first `frames` mel frames."""
    begins = FRAMES_PER_POSITION * jnp.arange(positions)
    return (begins[None] < frames[:, None]).astype(jnp.float32)


def token_mask(label_mask: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """Returns 1 for each token up to a row's last target: its prompt and its label."""
    return (jnp.cumsum(label_mask[:, ::-1], axis=1)[:, ::-1] > 0).astype(jnp.float32)
