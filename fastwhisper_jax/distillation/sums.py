"""The sums of Whisper's ASKD over a batch: which models are run, and what is logged of them."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import PairShapes
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
from fastwhisper_jax.training.sharding import BATCH_AXES, TOKEN_AXIS, batch_sharding
from fastwhisper_jax.training.state import TrainState, merge_params
from fastwhisper_jax.training.task import Batch, Metrics, Params, Phase

NO_TEACHER = Phase(runs_teacher=False, runs_self_teacher=False)


class AskdConfig(NamedTuple):
    """What is static in the sums of a batch.

    Attributes:
        teacher_dims, student_dims: sizes.
        teacher_options, student_options: how to compute; the student's hold its dropout.
        shares_encoder: the student's encoder is the teacher's, frozen: it is run once for both.
        loss: temperature, gate, chunk size and mesh of the loss.
    """

    teacher_dims: ModelDimensions
    student_dims: ModelDimensions
    teacher_options: ModelOptions
    student_options: ModelOptions
    shares_encoder: bool
    loss: ChunkSettings


def askd_config(config: Config, models: PairShapes, mesh: Mesh) -> AskdConfig:
    """What a recipe says of the sums of a batch."""
    objective, student = config.objective, config.student
    return AskdConfig(
        teacher_dims=models.teacher_dims,
        student_dims=models.student.dims,
        teacher_options=model_options(mesh, config.teacher.dtype),
        student_options=model_options(
            mesh,
            student.dtype,
            student.rematerialise,
            student.dropout,
            trains_encoder="encoder" not in student.frozen,
        ),
        shares_encoder=models.student.shares_encoder,
        loss=ChunkSettings(
            chunk_tokens=objective.chunk_tokens,
            temperature=objective.temperature,
            adaptive=objective.adaptive_gate,
            mesh=mesh,
            batch_axes=BATCH_AXES,
            token_axis=TOKEN_AXIS,
            width_axes=WIDTH_AXES,
        ),
    )


def make_sums(config: AskdConfig) -> Callable[..., Sums]:
    """Builds `Task.sums`: runs the models that a phase needs on a batch, and sums the objective.

    The batch holds
        log_mel (B, L, M) float32, what the student hears, or encoder_states (B, S, D) if its
            encoder was run before;
        teacher_states (B, T, D) if the teacher was run before, or
        teacher_log_mel (B, L', M) float32 if the teacher hears another window than the student, or
            without the student's SpecAugment;
        input_ids (B, T), labels (B, T) int32; label_mask (B, T) float32, 1 for target tokens.
    """
    dims, options = config.student_dims, config.student_options

    def sums(
        params: Params,
        frozen_params: Params,
        teacher_params: Params,
        self_teacher_params: Params | None,
        batch: Batch,
        weights: Weights,
        key: jax.Array,
        phase: Phase,
    ) -> Sums:
        encoder_key, decoder_key = jax.random.split(key) if options.dropout else (None, None)
        trains_encoder = "encoder" in params
        input_ids = batch["input_ids"]

        def whole(params: Params) -> Params:
            return whole_student(params, frozen_params, teacher_params, config.shares_encoder)

        def student_encode(student: Params, key: jax.Array | None = None) -> jax.Array:
            return whisper.encode(student, dims, batch["log_mel"], options, key)

        student = whole(params)
        if "encoder_states" in batch:
            encoder_states = batch["encoder_states"]
        elif config.shares_encoder:
            encoder_states = _teacher_encode(config, teacher_params, batch["log_mel"])
        else:
            encoder_states = student_encode(student, encoder_key if trains_encoder else None)
        states = whisper.decode(student, dims, input_ids, encoder_states, options, decoder_key)
        if config.loss.mesh is not None:
            rows = batch_sharding(config.loss.mesh)
            states = jax.lax.with_sharding_constraint(states, rows)

        teacher = self_teacher = None
        if phase.runs_teacher:
            teacher = _teacher_factors(config, teacher_params, batch, encoder_states)
        if self_teacher_params is not None:
            earlier = whole(self_teacher_params)
            heard = student_encode(earlier) if trains_encoder else encoder_states
            self_teacher_states = whisper.decode(earlier, dims, input_ids, heard, options)
            self_teacher = LogitFactors(self_teacher_states, earlier["decoder"]["embed_tokens"])

        return distillation_sums(
            LogitFactors(states, student["decoder"]["embed_tokens"]),
            Targets(batch["labels"], batch["label_mask"], weights, teacher, self_teacher),
            config.loss,
        )

    return sums


def _teacher_encode(config: AskdConfig, teacher_params: Params, log_mel: jax.Array) -> jax.Array:
    return whisper.encode(teacher_params, config.teacher_dims, log_mel, config.teacher_options)


def _teacher_factors(
    config: AskdConfig, teacher_params: Params, batch: Batch, encoder_states: jax.Array
) -> LogitFactors:
    """What the teacher's logits are made of; `encoder_states` are the student's."""
    states = batch.get("teacher_states")
    if states is None:
        if not config.shares_encoder or "teacher_log_mel" in batch:
            log_mel = batch["teacher_log_mel" if "teacher_log_mel" in batch else "log_mel"]
            encoder_states = _teacher_encode(config, teacher_params, log_mel)
        states = whisper.decode(
            teacher_params,
            config.teacher_dims,
            batch["input_ids"],
            encoder_states,
            config.teacher_options,
        )
    return LogitFactors(states, teacher_params["decoder"]["embed_tokens"])


def whole_student(
    params: Params, frozen_params: Params, teacher_params: Params, shares_encoder: bool
) -> Params:
    """All of the student's parameters, its encoder taken from the teacher if they share it."""
    shared = {"encoder": teacher_params["encoder"]} if shares_encoder else {}
    return merge_params(params, frozen_params, shared)


def askd_metrics(sums: Sums, weights: Weights, phase: Phase) -> Metrics:
    """What a run logs of an update, as pairs (sum, count).

    A term that the phase does not run counts no token: a mean of 0 would say "no distance".
    """
    one, none = jnp.ones(()), jnp.zeros(())
    taught = sums.count if phase.runs_teacher else none
    return {
        "ce": (sums.ce, sums.count),
        "kl_teacher": (sums.kl_teacher, taught),
        "kl_self": (sums.kl_self, sums.count if phase.runs_self_teacher else none),
        "accuracy": (sums.correct, sums.count),
        "teacher_accuracy": (sums.teacher_correct, taught),
        "teacher_weight": (weights.teacher, one),
        "self_weight": (weights.self_teacher, one),
        "ce_weight": (weights.ce, one),
    }


def make_eval_step(config: AskdConfig, seed: int = 0) -> Callable[..., Metrics]:
    """Builds (state, teacher_params, batch) -> the student's cross-entropy and token accuracy."""
    without_dropout = dataclasses.replace(config.student_options, dropout=0.0)
    sums = make_sums(config._replace(student_options=without_dropout))
    weights = Weights(jnp.ones(()), jnp.zeros(()), jnp.zeros(()))

    def eval_step(state: TrainState, teacher_params: Params, batch: Batch) -> Metrics:
        totals = sums(
            state.params,
            state.frozen_params,
            teacher_params,
            None,
            batch,
            weights,
            jax.random.key(seed),
            NO_TEACHER,
        )
        return {
            "eval_ce": (totals.ce, totals.count),
            "eval_accuracy": (totals.correct, totals.count),
        }

    return eval_step
