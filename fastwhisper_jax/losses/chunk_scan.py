"""One device's share of a chunked loss: its rows of the batch, a chunk of tokens at a time.

The logits of a chunk are projected, reduced to one loss per token and turned into the gradient of
the student's states and embedding before the next chunk begins. So nothing B x T x V is ever held,
and the backward pass has no projection to repeat.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.closed_form import TokenLosses, losses_and_gradient


class Source(NamedTuple):
    """What logits are projected from: states (B, T, D) and embedding (V, D), of one dtype."""

    states: jax.Array
    embedding: jax.Array


class Targets(NamedTuple):
    """Everything that the student is held against; none of it is differentiated."""

    teacher: Source | None
    self_teacher: Source | None
    labels: jax.Array
    label_mask: jax.Array
    weights: Weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over the unmasked target tokens of the global batch, float32 scalars.

    Divided by `count` they are means. Without the adaptive gate,
    `loss = c ce + a kl_teacher + m kl_self`.

    Attributes:
        loss: the objective; the only field that carries a gradient.
        ce: cross-entropy with the labels.
        kl_teacher: squared temperature x divergence from the teacher; 0 without one.
        kl_self: squared temperature x divergence from the earlier self; 0 without one.
        correct: tokens for which the label is the student's best token (or one of equals).
        teacher_correct: the same of the teacher; 0 without one.
        count: tokens.
    """

    loss: jax.Array
    ce: jax.Array
    kl_teacher: jax.Array
    kl_self: jax.Array
    correct: jax.Array
    teacher_correct: jax.Array
    count: jax.Array


class Gradients(NamedTuple):
    """Gradients of the summed loss, None where not wanted: states (B, T, D), embedding (V, D).

    That of the embedding holds the columns of this device where an axis divides them.
    """

    states: jax.Array | None
    embedding: jax.Array | None


def scan_chunks(
    student: Source,
    targets: Targets,
    *,
    temperature: float,
    adaptive: bool,
    chunk_tokens: int,
    mesh_axes: tuple[str, ...],
    width_axes: tuple[str, ...],
    wants_states: bool,
    wants_embedding: bool,
) -> tuple[Sums, Gradients]:
    """Returns the sums over all devices, and the gradients that are wanted.

    Args:
        student: the rows and tokens of this device.
        targets: likewise.
        temperature: above 0.
        adaptive: the gate of `askd.askd_losses`.
        chunk_tokens: most tokens of a chunk, all rows together; a chunk has one of each at least.
        mesh_axes: manual mesh axes over which other rows and tokens lie; () outside
            `jax.shard_map`.
        width_axes: those of them that divide the embedding's gradient over D, one after the other.
        wants_states: compute the gradient of the states, in their dtype.
        wants_embedding: compute the gradient of the embedding, summed over devices, in float32.
    """
    rows, length = targets.labels.shape
    n_chunks = -(-length // max(1, chunk_tokens // rows))
    # Chunks of about equal length, so that the last one is not mostly padding.
    chunk_size = -(-length // n_chunks)

    def split(array: jax.Array) -> jax.Array:
        """(B, T, ...) to (chunks, tokens of a chunk, ...): plain matrices for the projections."""
        rest = array.shape[2:]
        missing = n_chunks * chunk_size - length
        padded = jnp.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * len(rest))
        chunks = jnp.moveaxis(padded.reshape(rows, n_chunks, chunk_size, *rest), 1, 0)
        return chunks.reshape(n_chunks, rows * chunk_size, *rest)

    def join(chunks: jax.Array) -> jax.Array:
        rest = chunks.shape[2:]
        padded = jnp.moveaxis(chunks.reshape(n_chunks, rows, chunk_size, *rest), 0, 1)
        return padded.reshape(rows, n_chunks * chunk_size, *rest)[:, :length]

    def reduce_chunk(
        d_embedding: jax.Array | None, chunk: _Chunk
    ) -> tuple[jax.Array | None, tuple[TokenLosses, jax.Array | None]]:
        losses, d_logits = losses_and_gradient(
            _matmul(chunk.states, student.embedding, 1, 1),
            _logits(chunk.teacher_states, targets.teacher),
            _logits(chunk.self_teacher_states, targets.self_teacher),
            chunk.labels,
            targets.weights,
            temperature=temperature,
            adaptive=adaptive,
            gradient_scale=chunk.label_mask if wants_states or wants_embedding else None,
        )
        d_states = None
        if d_logits is not None:
            d_logits = d_logits.astype(chunk.states.dtype)
            if wants_states:
                d_states = _matmul(d_logits, student.embedding, 1, 0).astype(d_logits.dtype)
            if d_embedding is not None:
                d_embedding = d_embedding + _matmul(d_logits, chunk.states, 0, 0)
        return d_embedding, (losses, d_states)

    label_mask = targets.label_mask.astype(jnp.float32)
    batch = _Chunk(
        student.states,
        None if targets.teacher is None else targets.teacher.states,
        None if targets.self_teacher is None else targets.self_teacher.states,
        jnp.where(label_mask > 0, targets.labels, 0),
        label_mask,
    )
    d_embedding = None
    if wants_embedding:
        # Each device adds up a gradient of its own; they meet once, after the loop.
        zeros = jnp.zeros(student.embedding.shape, jnp.float32)
        d_embedding = jax.lax.pcast(zeros, mesh_axes, to="varying")
    chunks = jax.tree.map(split, batch)
    d_embedding, (losses, d_states) = jax.lax.scan(reduce_chunk, d_embedding, chunks)
    totals = jax.tree.map(lambda loss: jnp.sum(chunks.label_mask * loss), losses)
    sums = Sums(**totals._asdict(), count=jnp.sum(label_mask))
    sums = jax.lax.psum(sums, mesh_axes)
    if d_embedding is not None:
        for axis in width_axes:
            d_embedding = jax.lax.psum_scatter(d_embedding, axis, scatter_dimension=1, tiled=True)
        whole_axes = tuple(axis for axis in mesh_axes if axis not in width_axes)
        d_embedding = jax.lax.psum(d_embedding, whole_axes)
    return sums, Gradients(None if d_states is None else join(d_states), d_embedding)


class _Chunk(NamedTuple):
    """A batch, or the same fields with (B, T) replaced by the tokens of a chunk."""

    states: jax.Array
    teacher_states: jax.Array | None
    self_teacher_states: jax.Array | None
    labels: jax.Array
    label_mask: jax.Array


def _logits(states: jax.Array | None, source: Source | None) -> jax.Array | None:
    if states is None or source is None:
        return None
    return _matmul(states, source.embedding, 1, 1)


def _matmul(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """Contracts one axis of each of two matrices, accumulating in float32."""
    contracted = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, contracted, preferred_element_type=jnp.float32)
