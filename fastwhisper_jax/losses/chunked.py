"""The ASKD objective over a batch, without a vocabulary-wide array of it: what training uses.

Value and gradient are computed together, chunk by chunk (`chunk_scan`), when the call is
differentiated; the backward pass then only scales. On a mesh every device reduces its own rows.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.sharding import Mesh, PartitionSpec

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.chunk_scan import Gradients, Source, Sums, Targets, scan_chunks


class _Settings(NamedTuple):
    temperature: float
    adaptive: bool
    chunk_tokens: int
    mesh: Mesh | None
    batch_axes: tuple[str, ...]
    token_axis: str | None
    width_axes: tuple[str, ...]

    def without_axes_of_one(self) -> "_Settings":
        """The same with the axes that divide something: the others' sums would be copies."""
        if self.mesh is None:
            return self
        divide = [axis for axis, size in self.mesh.shape.items() if size > 1]
        reduced = self._replace(
            batch_axes=tuple(axis for axis in self.batch_axes if axis in divide),
            token_axis=self.token_axis if self.token_axis in divide else None,
            width_axes=tuple(axis for axis in self.width_axes if axis in divide),
        )
        return reduced if reduced.mesh_axes else reduced._replace(mesh=None)

    @property
    def token_axes(self) -> tuple[str, ...]:
        """The token axis, if there is one."""
        return () if self.token_axis is None else (self.token_axis,)

    @property
    def mesh_axes(self) -> tuple[str, ...]:
        """All axes over which the batch lies."""
        return self.batch_axes + self.token_axes


def distillation_sums(
    student_states: jax.Array,
    student_embedding: jax.Array,
    teacher_states: jax.Array | None,
    teacher_embedding: jax.Array | None,
    self_teacher_states: jax.Array | None,
    self_teacher_embedding: jax.Array | None,
    labels: jax.Array,
    label_mask: jax.Array,
    weights: Weights,
    *,
    chunk_tokens: int,
    temperature: float = 1.0,
    adaptive: bool = False,
    mesh: Mesh | None = None,
    batch_axes: tuple[str, ...] = (),
    token_axis: str | None = None,
    width_axes: tuple[str, ...] = (),
) -> Sums:
    """Returns the sums of `askd.askd_losses` and its parts over the unmasked tokens of a batch.

    Logits are states @ embedding.T, multiplied in the states' dtype and accumulated in float32;
    every softmax, divergence and sum is float32. Nothing of size B x T x V is held at any time.

    `loss` can be differentiated once, in reverse, with respect to `student_states` and
    `student_embedding`; all else is constant, and so are the other sums. A gradient is computed
    only where it is asked for: a frozen embedding costs nothing.

    Args:
        student_states: (B, T, D), the student's decoder output.
        student_embedding: (V, D).
        teacher_states: (B, T, D'), or None: there is no such term and its weight is not read.
        teacher_embedding: (V, D'), or None with the states.
        self_teacher_states: (B, T, D), or None: as for the teacher.
        self_teacher_embedding: (V, D), or None with the states.
        labels: (B, T), integers in [0, V); not read where masked.
        label_mask: (B, T), 1 for target tokens, 0 for prompt and padding.
        weights: c, a, m at this step.
        chunk_tokens: a device projects at most so many tokens at once, all of its rows together,
            but one of each row at least; T need not be a multiple of a row's share.
        temperature: above 0, static.
        adaptive: the gate of `askd.askd_losses`, static.
        mesh: the mesh over which the batch is sharded; None on a single device.
        batch_axes: the mesh's axes that shard B. Each device reduces its own rows; the sums and
            the gradient of the embedding meet once, after the last chunk.
        token_axis: the mesh's axis along which devices share their rows: each reduces its own part
            of the tokens. None where there is none.
        width_axes: those of these axes over which the embedding lies divided by its width, the
            outermost first: its gradient is left divided in the same way.

    Raises:
        InputError: shapes or settings do not fit each other.
    """
    student = Source(student_states, student_embedding)
    teacher = _optional_source("teacher", teacher_states, teacher_embedding)
    self_teacher = _optional_source("self", self_teacher_states, self_teacher_embedding)
    targets = Targets(teacher, self_teacher, labels, label_mask, weights)
    settings = _Settings(
        temperature, adaptive, chunk_tokens, mesh, tuple(batch_axes), token_axis, tuple(width_axes)
    )
    _check_shapes(student, targets)
    _check_settings(settings, *labels.shape)
    return _sums(settings.without_axes_of_one(), student_states, student_embedding, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(settings: _Settings, states: jax.Array, embedding: jax.Array, targets: Targets) -> Sums:
    return _reduce(settings, Source(states, embedding), targets, False, False)[0]


def _sums_forward(
    settings: _Settings, states: CustomVJPPrimal, embedding: CustomVJPPrimal, targets: Any
) -> tuple[Sums, Gradients]:
    targets = jax.tree.map(
        lambda leaf: leaf.value, targets, is_leaf=lambda leaf: isinstance(leaf, CustomVJPPrimal)
    )
    student = Source(states.value, embedding.value)
    return _reduce(settings, student, targets, states.perturbed, embedding.perturbed)


def _sums_backward(
    settings: _Settings, gradients: Gradients, cotangents: Sums
) -> tuple[jax.Array | None, jax.Array | None, None]:
    scale = cotangents.loss
    if isinstance(scale, SymbolicZero):
        return None, None, None
    scaled = jax.tree.map(lambda gradient: (scale * gradient).astype(gradient.dtype), gradients)
    return scaled.states, scaled.embedding, None


_sums.defvjp(_sums_forward, _sums_backward, symbolic_zeros=True)


def _reduce(
    settings: _Settings,
    student: Source,
    targets: Targets,
    wants_states: bool,
    wants_embedding: bool,
) -> tuple[Sums, Gradients]:
    """Runs `scan_chunks` on every device of the mesh, or on the one there is."""
    embedding_dtype = student.embedding.dtype
    # Cast once: before the loop, and before the mesh gathers the embeddings.
    student = _match_dtypes(student)
    teacher = None if targets.teacher is None else _match_dtypes(targets.teacher)
    self_teacher = None if targets.self_teacher is None else _match_dtypes(targets.self_teacher)
    targets = targets._replace(teacher=teacher, self_teacher=self_teacher)
    reduce = functools.partial(
        scan_chunks,
        temperature=settings.temperature,
        adaptive=settings.adaptive,
        chunk_tokens=settings.chunk_tokens,
        mesh_axes=settings.mesh_axes,
        width_axes=settings.width_axes,
        wants_states=wants_states,
        wants_embedding=wants_embedding,
    )
    if settings.mesh is not None:
        # Specs stand where the arrays do, hence Any.
        tokens: Any = PartitionSpec(settings.batch_axes or None, settings.token_axis)
        replicated: Any = PartitionSpec()
        source = Source(tokens, replicated)
        target_specs = Targets(
            None if teacher is None else source,
            None if self_teacher is None else source,
            tokens,
            tokens,
            Weights(replicated, replicated, replicated),
        )
        columns: Any = PartitionSpec(None, settings.width_axes or None)
        gradient_specs = Gradients(
            tokens if wants_states else None, columns if wants_embedding else None
        )
        reduce = jax.shard_map(
            reduce,
            mesh=settings.mesh,
            in_specs=(source, target_specs),
            out_specs=(replicated, gradient_specs),
        )
    sums, gradients = reduce(student, targets)
    if gradients.embedding is not None:
        gradients = gradients._replace(embedding=gradients.embedding.astype(embedding_dtype))
    return sums, gradients


def _match_dtypes(source: Source) -> Source:
    return Source(source.states, source.embedding.astype(source.states.dtype))


def _optional_source(
    name: str, states: jax.Array | None, embedding: jax.Array | None
) -> Source | None:
    if states is None and embedding is None:
        return None
    if states is None or embedding is None:
        given, missing = ("states", "embedding") if embedding is None else ("embedding", "states")
        raise InputError(
            f"{name}_{given} was given without {name}_{missing}; give both, or neither"
        )
    return Source(states, embedding)


def _check_shapes(student: Source, targets: Targets) -> None:
    problems = []
    shape, vocabulary = targets.labels.shape, student.embedding.shape[0]
    if len(shape) != 2:
        problems.append(f"labels have shape {shape}; they must be (B, T)")
    if targets.label_mask.shape != shape:
        problems.append(f"label_mask has shape {targets.label_mask.shape}, labels {shape}")
    sources = {"student": student, "teacher": targets.teacher, "self": targets.self_teacher}
    for name, source in sources.items():
        if source is None:
            continue
        if source.states.shape != (*shape, source.embedding.shape[1]):
            problems.append(
                f"{name}_states have shape {source.states.shape}; with labels {shape} and "
                f"{name}_embedding {source.embedding.shape} they must be "
                f"{(*shape, source.embedding.shape[1])}"
            )
        if source.embedding.shape[0] != vocabulary:
            problems.append(
                f"{name}_embedding has {source.embedding.shape[0]} tokens, the student's "
                f"{vocabulary}; both models must have one vocabulary"
            )
    if problems:
        raise InputError("; ".join(problems))


def _check_settings(settings: _Settings, rows: int, length: int) -> None:
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
    divided = ((rows, "rows", settings.batch_axes), (length, "tokens", settings.token_axes))
    for size, what, over in divided:
        devices = math.prod(mesh.shape[axis] for axis in over)
        if size % devices:
            raise InputError(
                f"a batch of {size} {what} does not divide over {devices} devices on mesh axes "
                f"{over}; use a multiple of {devices}"
            )
