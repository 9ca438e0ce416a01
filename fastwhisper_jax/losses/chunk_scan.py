"""The chunked loss on one device: a loop over chunks of tokens of the device's own rows.

Each pass of the loop computes the logits of one chunk, reduces them to one loss per token, and
turns them into the gradient of the student's states and embedding. Nothing of size B x T x V is
ever held, and the backward pass does not compute the logits again.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.closed_form import TokenLosses, losses_and_gradient
from fastwhisper_jax.losses.hidden_states import HiddenSums


class LogitFactors(NamedTuple):
    """The two factors of logits: logits = states @ embedding.T.

    Attributes:
        states: the decoder's output.
        embedding: the token embedding.
    """

    states: Float[Array, "B T D"]
    embedding: Float[Array, "V D"]


class Targets(NamedTuple):
    """What the student is compared with. None of it is differentiated.

    Attributes:
        labels: integers in [0, V); not read where masked.
        label_mask: 1 for target tokens, 0 for prompt and padding.
        weights: c, a, m at this step; h is not read.
        teacher: the teacher's logits, whose width D may differ from the student's. None leaves
            the term out, and its weight is not read.
        self_teacher: the self teacher's logits. None leaves the term out.
    """

    labels: Int[Array, "B T"]
    label_mask: Float[Array, "B T"]
    weights: Weights
    teacher: LogitFactors | None = None
    self_teacher: LogitFactors | None = None


class ChunkSettings(NamedTuple):
    """Static settings of the chunked loss.

    Attributes:
        chunk_tokens: the most tokens of a chunk, counted over all rows of a device. A chunk has at
            least one token of each row. T need not be a multiple of a row's share.
        temperature: t of `askd.askd_losses`, above 0.
        adaptive: the gate of `askd.askd_losses`.
        mesh: the mesh over which the batch is sharded; None on a single device.
        batch_axes: the mesh axes that shard B.
        token_axis: the mesh axis that shards T, or None.
        width_axes: those of these axes that shard the embedding over D, outermost first. The
            gradient of the embedding is sharded in the same way.
    """

    chunk_tokens: int
    temperature: float = 1.0
    adaptive: bool = False
    mesh: Mesh | None = None
    batch_axes: tuple[str, ...] = ()
    token_axis: str | None = None
    width_axes: tuple[str, ...] = ()

    def without_axes_of_one(self) -> "ChunkSettings":
        """Drops mesh axes of size 1; reducing over them would do nothing."""
        if self.mesh is None:
            return self
        wide = [axis for axis, size in self.mesh.shape.items() if size > 1]
        settings = self._replace(
            batch_axes=tuple(axis for axis in self.batch_axes if axis in wide),
            token_axis=self.token_axis if self.token_axis in wide else None,
            width_axes=tuple(axis for axis in self.width_axes if axis in wide),
        )
        return settings if settings.mesh_axes else settings._replace(mesh=None)

    @property
    def token_axes(self) -> tuple[str, ...]:
        """The token axis as a tuple of one name, or of none."""
        return () if self.token_axis is None else (self.token_axis,)

    @property
    def mesh_axes(self) -> tuple[str, ...]:
        """All mesh axes that shard the batch, over rows or tokens."""
        return self.batch_axes + self.token_axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over the unmasked target tokens of the global batch, float32 scalars.

    A sum divided by `count` is a mean. Without the adaptive gate,
    `loss = c ce + a kl_teacher + m kl_self + h hidden.distance`.

    Attributes:
        loss: the objective; the only field that carries a gradient.
        ce: cross-entropy with the labels.
        kl_teacher: squared temperature x divergence from the teacher; 0 without one.
        kl_self: squared temperature x divergence from the self teacher; 0 without one.
        correct: tokens whose label is the student's best token, or one of several equal ones.
        teacher_correct: tokens whose label is the teacher's best token; 0 without one.
        count: tokens.
        hidden: the distance between hidden states; None without one. It is not summed here.
    """

    loss: Float[Array, ""]
    ce: Float[Array, ""]
    kl_teacher: Float[Array, ""]
    kl_self: Float[Array, ""]
    correct: Float[Array, ""]
    teacher_correct: Float[Array, ""]
    count: Float[Array, ""]
    hidden: HiddenSums | None = None


class Gradients(NamedTuple):
    """Gradients of the summed loss; a gradient that is not wanted is None.

    Attributes:
        states: in the dtype of the states.
        embedding: summed over devices, float32. Where mesh axes divide D, each device holds its
            own columns.
    """

    states: Float[Array, "B T D"] | None
    embedding: Float[Array, "V D"] | None


def scan_chunks(
    student: LogitFactors,
    targets: Targets,
    settings: ChunkSettings,
    wants_states: bool,
    wants_embedding: bool,
) -> tuple[Sums, Gradients]:
    """Returns the sums over all devices, and the gradients that are wanted.

    Args:
        student: the rows and tokens of this device.
        targets: the rows and tokens of this device.
        settings: inside `jax.shard_map`, its mesh axes are manual.
        wants_states: compute the gradient of the states.
        wants_embedding: compute the gradient of the embedding.
    """
    rows, length = targets.labels.shape
    label_mask = targets.label_mask.astype(jnp.float32)
    batch = _Chunk(
        student.states,
        None if targets.teacher is None else targets.teacher.states,
        None if targets.self_teacher is None else targets.self_teacher.states,
        jnp.where(label_mask > 0, targets.labels, 0),
        label_mask,
    )

    def reduce_chunk(
        d_embedding: jax.Array | None, chunk: _Chunk
    ) -> tuple[jax.Array | None, tuple[TokenLosses, jax.Array | None]]:
        losses, d_logits = losses_and_gradient(
            _matmul(chunk.states, student.embedding, 1, 1),
            _logits(chunk.teacher_states, targets.teacher),
            _logits(chunk.self_teacher_states, targets.self_teacher),
            chunk.labels,
            targets.weights,
            temperature=settings.temperature,
            adaptive=settings.adaptive,
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

    d_embedding = None
    if wants_embedding:
        # Each device adds up its own gradient; the devices sum theirs once, after the loop.
        zeros = jnp.zeros(student.embedding.shape, jnp.float32)
        d_embedding = jax.lax.pcast(zeros, settings.mesh_axes, to="varying")
    n_chunks = -(-length // max(1, settings.chunk_tokens // rows))
    chunks = jax.tree.map(lambda array: _split(array, n_chunks), batch)
    d_embedding, (losses, d_states) = jax.lax.scan(reduce_chunk, d_embedding, chunks)
    totals = jax.tree.map(lambda loss: jnp.sum(chunks.label_mask * loss), losses)
    sums = Sums(**totals._asdict(), count=jnp.sum(label_mask))
    sums = jax.lax.psum(sums, settings.mesh_axes)
    return sums, Gradients(
        None if d_states is None else _join(d_states, rows, length),
        None if d_embedding is None else _sum_over_devices(d_embedding, settings),
    )


class _Chunk(NamedTuple):
    """The arrays of a batch, or of one chunk, where the chunk's tokens replace (B, T)."""

    states: jax.Array
    teacher_states: jax.Array | None
    self_teacher_states: jax.Array | None
    labels: jax.Array
    label_mask: jax.Array


def _split(array: jax.Array, n_chunks: int) -> jax.Array:
    """Reshapes (B, T, ...) to (chunks, tokens of a chunk, ...), so that each chunk is a matrix."""
    rows, length, *rest = array.shape
    # Chunks of about equal length, so that the last one is not mostly padding.
    chunk_length = -(-length // n_chunks)
    padding = [(0, 0), (0, n_chunks * chunk_length - length)] + [(0, 0)] * len(rest)
    padded = jnp.pad(array, padding).reshape(rows, n_chunks, chunk_length, *rest)
    return jnp.moveaxis(padded, 1, 0).reshape(n_chunks, rows * chunk_length, *rest)


def _join(chunks: jax.Array, rows: int, length: int) -> jax.Array:
    """Undoes `_split`."""
    n_chunks, _, *rest = chunks.shape
    padded = jnp.moveaxis(chunks.reshape(n_chunks, rows, -1, *rest), 0, 1)
    return padded.reshape(rows, -1, *rest)[:, :length]


def _sum_over_devices(d_embedding: jax.Array, settings: ChunkSettings) -> jax.Array:
    for axis in settings.width_axes:
        d_embedding = jax.lax.psum_scatter(d_embedding, axis, scatter_dimension=1, tiled=True)
    whole_axes = tuple(axis for axis in settings.mesh_axes if axis not in settings.width_axes)
    return jax.lax.psum(d_embedding, whole_axes)


def _logits(states: jax.Array | None, factors: LogitFactors | None) -> jax.Array | None:
    if states is None or factors is None:
        return None
    return _matmul(states, factors.embedding, 1, 1)


def _matmul(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """Contracts one axis of each of two matrices, accumulating in float32."""
    contracted = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, contracted, preferred_element_type=jnp.float32)
