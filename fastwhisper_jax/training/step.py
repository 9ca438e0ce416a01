"""One update as a pure function: teacher, student and earlier self are run, ASKD differentiated.

    train_step(state, teacher_params, batch) -> (state, metrics)

There is one step. What the recipe's weights leave out (the teacher's decoder once its weight is 0
for good, the earlier self before its phase and after it) is left out of the compiled program by the
static `Phase`; everything else follows the traced `state.step`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fastwhisper_jax.losses.askd import Weights
from fastwhisper_jax.losses.chunked import (
    ChunkSettings,
    LogitFactors,
    Sums,
    Targets,
    distillation_sums,
)
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import WIDTH_AXES
from fastwhisper_jax.training.random_keys import DROPOUT, step_key
from fastwhisper_jax.training.sharding import BATCH_AXES, TOKEN_AXIS, batch_sharding
from fastwhisper_jax.training.state import TrainState, whole_student

Batch = dict[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]
TrainStep = Callable[[TrainState, dict[str, Any], Batch], tuple[TrainState, Metrics]]


class Phase(NamedTuple):
    """What has to be run at all. Chosen on the host, outside `jax.jit`."""

    runs_teacher: bool
    runs_self_teacher: bool


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything static about a step.

    Attributes:
        teacher_dims, student_dims: sizes.
        chunk_tokens: target positions that the loss projects at once on a device.
        teacher_options, student_options: how to compute; the student's hold its dropout.
        shares_encoder: the student's encoder is the teacher's, frozen: it is run once for both.
        temperature: tau of both KL terms.
        adaptive: the gate of the objective.
        self_begin: the step at which the earlier self is seeded from the student.
        ema_decay: of the earlier self, an EMA; None makes it a snapshot.
        snapshot_steps: updates between two snapshots.
        accumulation_steps: micro-batches of an update.
        seed: of dropout.
    """

    teacher_dims: ModelDimensions
    student_dims: ModelDimensions
    chunk_tokens: int
    teacher_options: ModelOptions = ModelOptions()
    student_options: ModelOptions = ModelOptions()
    shares_encoder: bool = True
    temperature: float = 1.0
    adaptive: bool = False
    self_begin: int = 0
    ema_decay: float | None = 0.999
    snapshot_steps: int = 1
    accumulation_steps: int = 1
    seed: int = 0


def make_train_step(
    setup: StepConfig,
    phase: Phase,
    weights_at: Callable[[jax.Array], Weights],
    learning_rate_at: optax.Schedule,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainStep:
    """Builds the update of one phase; `jax.jit` it with the state donated.

    The batch is a dict of global arrays, rows over `sharding.BATCH_AXES`:
        log_mel (B, L, M) float32, or encoder_states (B, S, D) where the encoder is shared;
        teacher_states (B, T, D) where the teacher's decoder was run before;
        input_ids (B, T), labels (B, T) int32; label_mask (B, T) float32, 1 for target tokens.

    The loss is the sum over the target tokens of the global batch over their count, so sharding
    changes no result, nor does accumulation where dropout is 0: with dropout, every micro-batch
    draws its own masks. Metrics are pairs (sum, count); a term that the
    phase does not run counts no token.

    Args:
        setup: what is static.
        phase: which teachers are run.
        weights_at: the loss weights of the update that follows s completed ones.
        learning_rate_at: the optimiser's schedule, for the metrics.
        optimizer: of `state.params`.
        mesh: with the axes of `sharding.AXES`.
    """

    def train_step(
        state: TrainState, teacher_params: dict[str, Any], batch: Batch
    ) -> tuple[TrainState, Metrics]:
        weights = weights_at(state.step)
        self_teacher_params = _renewed_self(setup, state) if phase.runs_self_teacher else None
        target_count = batch["label_mask"].sum()

        def mean_loss(
            params: dict[str, Any], micro_batch: Batch, key: jax.Array
        ) -> tuple[jax.Array, Sums]:
            student = dataclasses.replace(state, params=params)
            sums = _sums(
                setup,
                phase,
                student,
                self_teacher_params,
                teacher_params,
                micro_batch,
                weights,
                key,
                mesh,
            )
            return sums.loss / target_count, sums

        grads, sums = _accumulate(
            jax.grad(mean_loss, has_aux=True),
            state.params,
            batch,
            step_key(setup.seed, DROPOUT, state.step),
            setup.accumulation_steps,
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if phase.runs_self_teacher and setup.ema_decay is not None:
            self_teacher_params = optax.incremental_update(
                params, self_teacher_params, 1.0 - setup.ema_decay
            )
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            self_teacher_params=self_teacher_params
            if phase.runs_self_teacher
            else state.self_teacher_params,
        )
        one, none = jnp.ones(()), jnp.zeros(())
        # Over the tokens of the updates that ran the term: a mean of 0 would say "no distance".
        taught = sums.count if phase.runs_teacher else none
        metrics = {
            "loss": (sums.loss, sums.count),
            "ce": (sums.ce, sums.count),
            "kl_teacher": (sums.kl_teacher, taught),
            "kl_self": (sums.kl_self, sums.count if phase.runs_self_teacher else none),
            "accuracy": (sums.correct, sums.count),
            "teacher_accuracy": (sums.teacher_correct, taught),
            "teacher_weight": (weights.teacher, one),
            "self_weight": (weights.self_teacher, one),
            "ce_weight": (weights.ce, one),
            "learning_rate": (learning_rate_at(state.step), one),
            "grad_norm": (optax.tree.norm(grads), one),
        }
        return new_state, metrics

    return train_step


def _renewed_self(setup: StepConfig, state: TrainState) -> dict[str, Any]:
    """The earlier self as this update sees it: seeded, or a snapshot that is due, or as it was."""
    assert state.self_teacher_params is not None
    since = state.step - setup.self_begin
    is_due = since == 0 if setup.ema_decay is not None else since % setup.snapshot_steps == 0
    return jax.tree.map(
        lambda x, old: jnp.where(is_due, x, old), state.params, state.self_teacher_params
    )


def _sums(
    setup: StepConfig,
    phase: Phase,
    state: TrainState,
    self_teacher_params: dict[str, Any] | None,
    teacher_params: dict[str, Any],
    batch: Batch,
    weights: Weights,
    key: jax.Array,
    mesh: Mesh,
) -> Sums:
    """Runs the models that the phase needs on one micro-batch, and sums the objective."""
    dims, options = setup.student_dims, setup.student_options
    encoder_key, decoder_key = jax.random.split(key) if options.dropout else (None, None)
    student = whole_student(state, teacher_params, setup.shares_encoder)
    trains_encoder = "encoder" in state.params
    tokens = batch["input_ids"]

    def encode_by_teacher() -> jax.Array:
        if "encoder_states" in batch:
            return batch["encoder_states"]
        return whisper.encode(
            teacher_params, setup.teacher_dims, batch["log_mel"], setup.teacher_options
        )

    if setup.shares_encoder:
        encoder_states = self_teacher_encoder_states = encode_by_teacher()
    else:
        window = batch["log_mel"][:, : dims.n_frames]
        encoder_key = encoder_key if trains_encoder else None
        encoder_states = self_teacher_encoder_states = whisper.encode(
            student, dims, window, options, encoder_key
        )

    states = whisper.decode(student, dims, tokens, encoder_states, options, decoder_key)
    states = jax.lax.with_sharding_constraint(states, batch_sharding(mesh))
    teacher_factors = self_teacher_factors = None
    if phase.runs_teacher:
        teacher_states = batch.get("teacher_states")
        if teacher_states is None:
            teacher_encoder_states = encoder_states if setup.shares_encoder else encode_by_teacher()
            teacher_states = whisper.decode(
                teacher_params,
                setup.teacher_dims,
                tokens,
                teacher_encoder_states,
                setup.teacher_options,
            )
        teacher_factors = LogitFactors(teacher_states, teacher_params["decoder"]["embed_tokens"])
    if self_teacher_params is not None:
        itself = whole_student(
            dataclasses.replace(state, params=self_teacher_params),
            teacher_params,
            setup.shares_encoder,
        )
        if trains_encoder:
            self_teacher_encoder_states = whisper.encode(itself, dims, window, options)
        self_teacher_states = whisper.decode(
            itself, dims, tokens, self_teacher_encoder_states, options
        )
        self_teacher_factors = LogitFactors(self_teacher_states, itself["decoder"]["embed_tokens"])

    return distillation_sums(
        LogitFactors(states, student["decoder"]["embed_tokens"]),
        Targets(
            batch["labels"], batch["label_mask"], weights, teacher_factors, self_teacher_factors
        ),
        ChunkSettings(
            setup.chunk_tokens,
            setup.temperature,
            setup.adaptive,
            mesh,
            BATCH_AXES,
            TOKEN_AXIS,
            WIDTH_AXES,
        ),
    )


def _accumulate(
    grad_fn: Callable[..., tuple[Any, Sums]],
    params: dict[str, Any],
    batch: Batch,
    key: jax.Array,
    accumulation_steps: int,
) -> tuple[Any, Sums]:
    """Sums gradients and sums over micro-batches, one after the other."""
    if accumulation_steps == 1:
        return grad_fn(params, batch, key)

    def split(x: jax.Array) -> jax.Array:
        # Row r goes to micro-batch r % accumulation_steps: every device keeps the rows it has.
        rows = x.shape[0] // accumulation_steps
        return x.reshape(rows, accumulation_steps, *x.shape[1:]).swapaxes(0, 1)

    def body(total: Any, micro: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        micro_batch, index = micro
        part = grad_fn(params, micro_batch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, part), None

    micro_batches = (jax.tree.map(split, batch), jnp.arange(accumulation_steps))
    first = jax.tree.map(lambda x: x[0], micro_batches[0])
    shapes = jax.eval_shape(grad_fn, params, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(body, zeros, micro_batches)
    return total


def make_eval_step(
    setup: StepConfig, mesh: Mesh
) -> Callable[[TrainState, dict[str, Any], Batch], Metrics]:
    """Builds the student's cross-entropy and token accuracy on a batch, as pairs (sum, count)."""
    setup = dataclasses.replace(
        setup, student_options=dataclasses.replace(setup.student_options, dropout=0.0)
    )
    phase = Phase(runs_teacher=False, runs_self_teacher=False)

    def eval_step(state: TrainState, teacher_params: dict[str, Any], batch: Batch) -> Metrics:
        weights = Weights(jnp.ones(()), jnp.zeros(()), jnp.zeros(()))
        key = jax.random.key(setup.seed)
        sums = _sums(setup, phase, state, None, teacher_params, batch, weights, key, mesh)
        return {"eval_ce": (sums.ce, sums.count), "eval_accuracy": (sums.correct, sums.count)}

    return eval_step
