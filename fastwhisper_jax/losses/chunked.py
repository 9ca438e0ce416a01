"""The ASKD objective over a batch, as training computes it: no vocabulary-wide array of the batch.

When the call is differentiated, its value and its gradient are computed together, chunk by chunk
(`chunk_scan`). The backward pass only scales them. On a mesh every device reduces its own rows.
"""

import functools
import math
from typing import Any

import jax
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.sharding import PartitionSpec

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.chunk_scan import (
    ChunkSettings,
    Gradients,
    LogitFactors,
    Sums,
    Targets,
    scan_chunks,
)


def distillation_sums(student: LogitFactors, targets: Targets, settings: ChunkSettings) -> Sums:
    """Returns the sums of `askd.askd_losses` and its parts over the unmasked tokens of a batch.

    Logits are multiplied in the dtype of the states and accumulated in float32. Every softmax,
    divergence and sum is float32. Nothing of size B x T x V is held at any time.

    `loss` can be differentiated once, in reverse mode, with respect to `student`. Everything else
    is constant, and so are the other sums. A gradient is computed only where it is asked for: a
    frozen embedding costs nothing.

    On a mesh each device reduces its own rows and tokens. The devices sum their results and their
    gradients of the embedding once, after the last chunk.

    Args:
        student: the student's logits.
        targets: the labels, the weights, and the logits of the teachers.
        settings: static.

    Raises:
        InputError: shapes or settings do not fit each other.
    """
    _check_shapes(student, targets)
    _check_settings(settings, *targets.labels.shape)
    return _sums(settings.without_axes_of_one(), student, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(settings: ChunkSettings, student: LogitFactors, targets: Targets) -> Sums:
    return _reduce(settings, student, targets, False, False)[0]


def _sums_forward(settings: ChunkSettings, student: Any, targets: Any) -> tuple[Sums, Gradients]:
    # Every leaf is a CustomVJPPrimal: its value, and whether a gradient is wanted.
    wants_states, wants_embedding = (leaf.perturbed for leaf in student)
    student, targets = jax.tree.map(
        lambda leaf: leaf.value,
        (student, targets),
        is_leaf=lambda leaf: isinstance(leaf, CustomVJPPrimal),
    )
    return _reduce(settings, student, targets, wants_states, wants_embedding)


def _sums_backward(
    settings: ChunkSettings, gradients: Gradients, cotangents: Sums
) -> tuple[LogitFactors | None, None]:
    scale = cotangents.loss
    if isinstance(scale, SymbolicZero):
        return None, None
    scaled = jax.tree.map(lambda gradient: (scale * gradient).astype(gradient.dtype), gradients)
    return LogitFactors(*scaled), None


_sums.defvjp(_sums_forward, _sums_backward, symbolic_zeros=True)


def _reduce(
    settings: ChunkSettings,
    student: LogitFactors,
    targets: Targets,
    wants_states: bool,
    wants_embedding: bool,
) -> tuple[Sums, Gradients]:
    """Runs `scan_chunks` on every device of the mesh, or on the single device."""
    embedding_dtype = student.embedding.dtype
    # Cast once: before the loop, and before the mesh gathers the embeddings.
    student, targets = _match_dtypes((student, targets))
    reduce = functools.partial(
        scan_chunks,
        settings=settings,
        wants_states=wants_states,
        wants_embedding=wants_embedding,
    )
    if settings.mesh is not None:
        # The records hold PartitionSpecs in place of arrays, hence Any.
        tokens: Any = PartitionSpec(settings.batch_axes or None, settings.token_axis)
        replicated: Any = PartitionSpec()
        factor_specs = LogitFactors(tokens, replicated)
        target_specs = Targets(
            tokens,
            tokens,
            jax.tree.map(lambda _: replicated, targets.weights),
            None if targets.teacher is None else factor_specs,
            None if targets.self_teacher is None else factor_specs,
        )
        columns: Any = PartitionSpec(None, settings.width_axes or None)
        gradient_specs = Gradients(
            tokens if wants_states else None, columns if wants_embedding else None
        )
        reduce = jax.shard_map(
            reduce,
            mesh=settings.mesh,
            in_specs=(factor_specs, target_specs),
            out_specs=(replicated, gradient_specs),
        )
    sums, gradients = reduce(student, targets)
    if gradients.embedding is not None:
        gradients = gradients._replace(embedding=gradients.embedding.astype(embedding_dtype))
    return sums, gradients


def _match_dtypes(tree: Any) -> Any:
    """Casts each embedding in a tree of `LogitFactors` to the dtype of its states."""

    def match(leaf: Any) -> Any:
        if not isinstance(leaf, LogitFactors):
            return leaf
        return leaf._replace(embedding=leaf.embedding.astype(leaf.states.dtype))

    return jax.tree.map(match, tree, is_leaf=lambda leaf: isinstance(leaf, LogitFactors))


def _check_shapes(student: LogitFactors, targets: Targets) -> None:
    problems = []
    shape, vocabulary = targets.labels.shape, student.embedding.shape[0]
    if len(shape) != 2:
        problems.append(f"labels have shape {shape}; they must be (B, T)")
    if targets.label_mask.shape != shape:
        problems.append(f"label_mask has shape {targets.label_mask.shape}, labels {shape}")
    logits = {"student": student, "teacher": targets.teacher, "self_teacher": targets.self_teacher}
    for name, factors in logits.items():
        if factors is None:
            continue
        expected = (*shape, factors.embedding.shape[1])
        if factors.states.shape != expected:
            problems.append(
                f"{name}.states have shape {factors.states.shape}; with labels {shape} and "
                f"{name}.embedding {factors.embedding.shape} they must be {expected}"
            )
        if factors.embedding.shape[0] != vocabulary:
            problems.append(
                f"{name}.embedding has {factors.embedding.shape[0]} tokens, the student's "
                f"{vocabulary}; both models must have one vocabulary"
            )
    if problems:
        raise InputError("; ".join(problems))


def _check_settings(settings: ChunkSettings, rows: int, length: int) -> None:
    if not settings.temperature > 0:
        raise InputError(f"temperature={settings.temperature} must be above 0; 1 changes nothing")
    if settings.chunk_tokens < 1:
        raise InputError(f"chunk_tokens={settings.chunk_tokens} must be at least 1")
    mesh = settings.mesh
    axes = () if mesh is None else mesh.axis_names
    for name, given in (("batch_axes", settings.batch_axes), ("token_axis", settings.token_axes)):
        if not set(given) <= set(axes):
            raise InputError(f"{name}={given} must be axes of the mesh, which has {axes}")
    if mesh is None:
        return
    sharded = ((rows, "rows", settings.batch_axes), (length, "tokens", settings.token_axes))
    for size, unit, over in sharded:
        devices = math.prod(mesh.shape[axis] for axis in over)
        if size % devices:
            raise InputError(
                f"a batch of {size} {unit} does not divide over {devices} devices on mesh axes "
                f"{over}; use a multiple of {devices}"
            )
