"""The sums of Whisper's ASKD over a batch: which models are run, and what is logged of them."""

import dataclasses
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.hidden_states import (
    COMPARES_NOTHING,
    HIDDEN_MAPS,
    Comparison,
    compare_states,
    make_comparison,
    reads_labels,
)
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
from fastwhisper_jax.losses.hidden_states import HiddenSums
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper import StackStates
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
        comparison: the hidden states that are compared in the phases that compare any.
        runs_decoder: whether the student's decoder is run: an objective without labels needs none.
    """

    teacher_dims: ModelDimensions
    student_dims: ModelDimensions
    teacher_options: ModelOptions
    student_options: ModelOptions
    shares_encoder: bool
    loss: ChunkSettings
    comparison: Comparison = COMPARES_NOTHING
    runs_decoder: bool = True


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
        comparison=make_comparison(config, models),
        runs_decoder=reads_labels(config),
    )


def make_sums(config: AskdConfig) -> Callable[..., Sums]:
    """Builds `Task.sums`: runs the models that a phase needs on a batch, and sums the objective.

    The batch holds
        log_mel (B, L, M) float32, what the student hears, or encoder_states (B, S, D) if its
            encoder was run before;
        teacher_states (B, T, D) if the teacher was run before, or
        teacher_log_mel (B, L', M) float32 if the teacher hears another window than the student, or
            without the student's SpecAugment;
        input_ids (B, T), labels (B, T) int32; label_mask (B, T) float32, 1 for target tokens;
        speech_frames (B,) int32, mel frames that hold speech, if the encoders are compared.
    """
    settings, options = config.loss, config.student_options

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
        compared = config.comparison.pairs if phase.compares_hidden_states else {}
        encoder_key, decoder_key = jax.random.split(key) if options.dropout else (None, None)
        trains_encoder = "encoder" in params

        def whole(params: Params) -> Params:
            return whole_student(params, frozen_params, teacher_params, config.shares_encoder)

        student = whole(params)
        if "encoder_states" in batch:
            heard = StackStates(batch["encoder_states"])
        elif config.shares_encoder:
            heard = _teacher_encode(config, teacher_params, batch["log_mel"], compared)
        else:
            encoder_key = encoder_key if trains_encoder else None
            heard = _student_encode(config, student, batch, encoder_key, compared)
        states = {"encoder": heard}
        if config.runs_decoder:
            decoded = _student_decode(config, student, batch, heard, decoder_key, compared)
            if settings.mesh is not None:
                rows = batch_sharding(settings.mesh)
                output = jax.lax.with_sharding_constraint(decoded.output, rows)
                decoded = decoded._replace(output=output)
            states["decoder"] = decoded

        teacher_states = _run_teacher(config, teacher_params, batch, heard, phase, compared)
        teacher = self_teacher = None
        if phase.runs_teacher:
            teacher = _logit_factors(teacher_states["decoder"], teacher_params)
        if self_teacher_params is not None:
            earlier = whole(self_teacher_params)
            earlier_heard = _student_encode(config, earlier, batch) if trains_encoder else heard
            earlier_states = _student_decode(config, earlier, batch, earlier_heard)
            self_teacher = _logit_factors(earlier_states, earlier)

        if config.runs_decoder:
            targets = Targets(batch["labels"], batch["label_mask"], weights, teacher, self_teacher)
            logits = _logit_factors(states["decoder"], student)
            total = distillation_sums(logits, targets, settings)
        else:
            total = _no_tokens()
        if not compared:
            return total
        maps = params.get(HIDDEN_MAPS, {})
        hidden = compare_states(config.comparison, maps, batch, states, teacher_states, options)
        loss = total.loss + jnp.asarray(weights.hidden) * hidden.distance
        return dataclasses.replace(total, loss=loss, hidden=hidden)

    return sums


def _student_encode(
    config: AskdConfig,
    student: Params,
    batch: Batch,
    key: jax.Array | None = None,
    compared: Collection[str] = (),
) -> StackStates:
    return whisper.run_encoder(
        student,
        config.student_dims,
        batch["log_mel"],
        config.student_options,
        key,
        keeps_layers="encoder" in compared,
    )


def _student_decode(
    config: AskdConfig,
    student: Params,
    batch: Batch,
    heard: StackStates,
    key: jax.Array | None = None,
    compared: Collection[str] = (),
) -> StackStates:
    return whisper.run_decoder(
        student,
        config.student_dims,
        batch["input_ids"],
        heard.output,
        config.student_options,
        key,
        keeps_layers="decoder" in compared,
    )


def _teacher_encode(
    config: AskdConfig, teacher_params: Params, log_mel: jax.Array, compared: Collection[str]
) -> StackStates:
    return whisper.run_encoder(
        teacher_params,
        config.teacher_dims,
        log_mel,
        config.teacher_options,
        keeps_layers="encoder" in compared,
    )


def _run_teacher(
    config: AskdConfig,
    teacher_params: Params,
    batch: Batch,
    heard: StackStates,
    phase: Phase,
    compared: Collection[str],
) -> dict[str, StackStates]:
    """The teacher's states of the stacks that a phase needs, from the batch if they are cached.

    `heard` holds the student's encoder states. They are the teacher's own if the encoder is shared
    and both hear the same.
    """
    if not phase.runs_teacher and not compared:
        return {}
    if "teacher_states" in batch:
        return {"decoder": StackStates(batch["teacher_states"])}
    if not config.shares_encoder or "teacher_log_mel" in batch:
        log_mel = batch["teacher_log_mel" if "teacher_log_mel" in batch else "log_mel"]
        heard = _teacher_encode(config, teacher_params, log_mel, compared)
    states = {"encoder": heard}
    if phase.runs_teacher or "decoder" in compared:
        states["decoder"] = whisper.run_decoder(
            teacher_params,
            config.teacher_dims,
            batch["input_ids"],
            heard.output,
            config.teacher_options,
            keeps_layers="decoder" in compared,
        )
    return states


def _no_tokens() -> Sums:
    zero = jnp.zeros(())
    return Sums(
        loss=zero,
        ce=zero,
        kl_teacher=zero,
        kl_self=zero,
        correct=zero,
        teacher_correct=zero,
        count=zero,
    )


def _logit_factors(states: StackStates, params: Params) -> LogitFactors:
    return LogitFactors(states.output, params["decoder"]["embed_tokens"])


def whole_student(
    params: Params, frozen_params: Params, teacher_params: Params, shares_encoder: bool
) -> Params:
    """All of the student's parameters, its encoder taken from the teacher if they share it.

    The maps of its hidden states are left out, for they belong to training alone.
    """
    shared = {"encoder": teacher_params["encoder"]} if shares_encoder else {}
    own = {name: stack for name, stack in params.items() if name != HIDDEN_MAPS}
    return merge_params(own, frozen_params, shared)


def askd_metrics(sums: Sums, weights: Weights, phase: Phase) -> Metrics:
    """What a run logs of an update, as pairs (sum, count).

    A term that the phase does not run counts no token: a mean of 0 would say "no distance".
    """
    one, none = jnp.ones(()), jnp.zeros(())
    taught = sums.count if phase.runs_teacher else none
    hidden: Metrics = {}
    if weights.hidden is not None:
        distance = HiddenSums(none, none) if sums.hidden is None else sums.hidden
        hidden = {"hidden": distance, "hidden_weight": (weights.hidden, one)}
    return hidden | {
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
    sums = make_sums(config._replace(student_options=without_dropout, runs_decoder=True))
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
