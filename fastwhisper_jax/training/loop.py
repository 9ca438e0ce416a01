"""The run: batches in, updates, logs, evaluations and checkpoints out."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.batches import BatchRules, BatchSchedule, plan_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.errors import InputError, Interrupted, TrainingError
from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.feeding import device_batches, make_featurise
from fastwhisper_jax.training.interruption import stop_request
from fastwhisper_jax.training.metrics import MetricsLog, reduce_pairs
from fastwhisper_jax.training.plan import RunPlan, make_plan
from fastwhisper_jax.training.progress import progress
from fastwhisper_jax.training.sharding import tree_shardings
from fastwhisper_jax.training.state import TrainState, init_state, split_params, whole_student
from fastwhisper_jax.training.step import (
    Batch,
    Distillation,
    Metrics,
    make_eval_step,
    make_train_step,
)

CHECKPOINTS = "checkpoints"
SHOWN = ("loss", "eval_wer")


@dataclasses.dataclass(frozen=True)
class Models:
    """Teacher and student of a run.

    Attributes:
        teacher_dims, student_dims: sizes.
        teacher_params: on the mesh, in the teacher's dtype.
        student_params: the student before its first update, float32; the encoder is not read where
            it is the teacher's.
    """

    teacher_dims: ModelDimensions
    teacher_params: dict[str, Any]
    student_dims: ModelDimensions
    student_params: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        train: to train on.
        eval: to evaluate on, or None.
        load_inputs: the encoder's input of some rows, or its cached output.
        end_of_text: token that ends and pads labels.
    """

    train: Corpus
    eval: Corpus | None
    load_inputs: LoadInputs
    end_of_text: int


def train(
    config: Config,
    run_dir: Path,
    models: Models,
    data: RunData,
    mesh: Mesh,
    score: Callable[[dict[str, Any]], dict[str, float]] | None = None,
) -> TrainState:
    """Trains a student to the end of its recipe, going on from the run's newest good checkpoint.

    Args:
        config: the recipe.
        run_dir: gets metrics.jsonl, tensorboard/ and checkpoints/.
        models: teacher and student.
        data: what to read.
        mesh: where to run.
        score: error rates of the student with these parameters, logged as they are named.

    Returns:
        The state after the last update.

    Raises:
        InputError: the run's checkpoints or data are not those of this config.
        TrainingError: the loss or the gradient is not finite.
        Interrupted: the run was asked to stop and has saved its state.
    """
    settings = config.training
    schedule = make_batch_schedule(config, data.train)
    plan = make_plan(config.objective, config.optimizer, len(schedule))
    setup = make_distillation(config, models, plan)
    shapes = abstract_state(config, models.student_params, plan, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    featurise = make_featurise(models.teacher_dims.n_mels, config.data, settings.seed, augments=True)
    train_step = PhasedStep(setup, plan, shardings, mesh)
    evaluate = make_evaluate(config, setup, models, data, mesh, score)
    fingerprint = {"train_data": _fingerprint(data.train)}
    is_first = jax.process_index() == 0

    with Checkpoints(run_dir / CHECKPOINTS, settings.keep_checkpoints) as checkpoints:
        restored = checkpoints.restore(shapes)
        if restored is None:
            state, start = first_state(config, models.student_params, plan, shardings), 0
        else:
            state, start = restored.state, restored.step
            if restored.metadata != fingerprint:
                raise InputError(
                    f"{run_dir} was trained on other data than {', '.join(config.data.train)} now "
                    "holds; use another --run-dir, or bring the data back"
                )
        with (
            MetricsLog(run_dir, start if restored else None) as log,
            stop_request() as stop,
            progress(
                len(schedule), "train", "steps", initial=start, shown=is_first
            ) as advance,
        ):
            for line in restored.skipped if restored else ():
                advance.say(line)
            if start:
                advance.say(f"resumed from the checkpoint of step {start}")
            batches = device_batches(
                schedule,
                data.train,
                data.load_inputs,
                featurise,
                mesh,
                end_of_text=data.end_of_text,
                start_step=start,
                threads=config.data.threads,
            )
            window = Window()
            # At the top of the loop: `state.step == step` updates are complete, batch `step` is
            # the next of the schedule, and the row of metrics of every step up to here is written.
            for step, batch in zip(range(start, len(schedule)), batches, strict=True):
                state, metrics = train_step(step, state, models.teacher_params, batch)
                window.add(metrics)
                done, is_last = step + 1, step + 1 == len(schedule)
                stops = stop.at(done)
                row: dict[str, float] = {}
                if done % settings.log_every == 0 or is_last:
                    row = window.reduce(done, settings.global_batch_size)
                if _is_due(done, settings.eval_every) or is_last:
                    row |= evaluate(state)
                    window.restart_clock()
                if row:
                    log.write(done, row)
                if _is_due(done, settings.save_every) or is_last or stops:
                    checkpoints.save(done, state, fingerprint)
                    window.restart_clock()
                advance(1, **{name: row[name] for name in SHOWN if name in row})
                if stops and not is_last:
                    checkpoints.wait()
                    raise Interrupted(
                        f"stopped after step {done} of {len(schedule)}, which is saved; the same "
                        "command goes on from there"
                    )
    return state


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


class PhasedStep:
    """The compiled steps of a run, one a phase; jit adds one a label bucket."""

    def __init__(
        self, setup: Distillation, plan: RunPlan, shardings: TrainState, mesh: Mesh
    ) -> None:
        self._plan = plan
        phases = {plan.phase(step) for step in (0, plan.teacher_end, plan.self_begin)}
        self.compiled = {
            phase: jax.jit(
                make_train_step(
                    setup, phase, plan.weights_at, plan.learning_rate_at, plan.optimizer, mesh
                ),
                donate_argnums=0,
                out_shardings=(shardings, None),
            )
            for phase in phases | {plan.phase(max(plan.teacher_end, plan.self_begin))}
        }

    def __call__(
        self, step: int, state: TrainState, teacher_params: dict[str, Any], batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """Makes the update after `step` completed ones."""
        return self.compiled[self._plan.phase(step)](state, teacher_params, batch)


class Window:
    """The metrics since the last row that was written, and the time they took."""

    def __init__(self) -> None:
        self._metrics: list[Metrics] = []
        self._seconds = 0.0
        self._since = time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        """Adds a dispatched step; waits for the one before, so that the host runs one step ahead."""
        if self._metrics:
            jax.block_until_ready(self._metrics[-1])
        self._metrics.append(metrics)

    def restart_clock(self) -> None:
        """Leaves the time since the last reading out."""
        self._since = time.perf_counter()

    def reduce(self, done: int, global_batch_size: int) -> dict[str, float]:
        """The row of metrics of the steps since the last one, `done` completed; empties the window.

        Raises:
            TrainingError: loss or gradient norm is not finite.
        """
        row = reduce_pairs(self._metrics)
        count = len(self._metrics)
        seconds = (time.perf_counter() - self._since) / count
        self._metrics = []
        self.restart_clock()
        for name in ("loss", "grad_norm"):
            if not math.isfinite(row[name]):
                raise TrainingError(
                    f"{name} is {row[name]} in steps {done - count + 1} to {done}; lower "
                    "optimizer.learning_rate or lengthen optimizer.warmup, and start from the last "
                    "checkpoint before"
                )
        return row | {"step_seconds": seconds, "samples_per_second": global_batch_size / seconds}


def make_batch_schedule(config: Config, corpus: Corpus) -> BatchSchedule:
    """The batches of the run."""
    rules = BatchRules(
        global_batch_size=config.training.global_batch_size,
        buckets=config.data.target_buckets,
        context_seconds=config.student.context_seconds,
        seed=config.training.seed,
        join_probability=config.data.concatenate_probability,
    )
    if config.training.steps is not None:
        return BatchSchedule(corpus.sizes, rules, steps=config.training.steps)
    return BatchSchedule(corpus.sizes, rules, epochs=config.training.epochs)


def make_distillation(config: Config, models: Models, plan: RunPlan) -> Distillation:
    """Everything static about the run's step."""
    objective, student = config.objective, config.student
    return Distillation(
        teacher_dims=models.teacher_dims,
        student_dims=models.student_dims,
        teacher_options=ModelOptions(dtype=config.teacher.dtype),
        student_options=ModelOptions(student.dtype, student.rematerialise, student.dropout),
        shares_encoder=config.frozen_encoder_is_teachers,
        temperature=objective.temperature,
        adaptive=objective.adaptive_gate,
        self_begin=plan.self_begin,
        ema_decay=objective.ema_decay if objective.self_teacher == "ema" else None,
        snapshot_steps=objective.snapshot_steps,
        accumulation_steps=config.training.accumulation_steps,
        chunk_tokens=objective.chunk_tokens,
        seed=config.training.seed,
    )


def abstract_state(
    config: Config, student_params: dict[str, Any], plan: RunPlan, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of the run's state; `student_params` may be shapes themselves."""
    parts = _own_params(config, student_params)
    keeps_self = config.objective.has_self_phase
    shapes = jax.eval_shape(lambda p, f: init_state(p, f, plan.optimizer, keeps_self), *parts)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        tree_shardings(shapes, mesh),
    )


def first_state(
    config: Config, student_params: dict[str, Any], plan: RunPlan, shardings: TrainState
) -> TrainState:
    """The state before the first update, on the mesh."""
    parts = _own_params(config, student_params)
    keeps_self = config.objective.has_self_phase
    init = jax.jit(
        lambda p, f: init_state(p, f, plan.optimizer, keeps_self), out_shardings=shardings
    )
    return init(*parts)


def _own_params(
    config: Config, student_params: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    params, frozen_params = split_params(student_params, config.student.frozen)
    if config.frozen_encoder_is_teachers:
        frozen_params.pop("encoder")
    return params, frozen_params


def make_evaluate(
    config: Config,
    setup: Distillation,
    models: Models,
    data: RunData,
    mesh: Mesh,
    score: Callable[[dict[str, Any]], dict[str, float]] | None,
) -> Callable[[TrainState], dict[str, float]]:
    """Builds the evaluation of a state: loss per token on the eval set, and what `score` returns."""
    corpus = data.eval
    if corpus is None:
        return lambda state: {}
    featurise = make_featurise(models.teacher_dims.n_mels, config.data, 0, augments=False)
    eval_step = jax.jit(make_eval_step(setup, mesh))
    plans = plan_in_order(
        corpus.sizes, config.training.eval_batch_size, config.data.target_buckets
    )

    def evaluate(state: TrainState) -> dict[str, float]:
        batches = device_batches(
            plans, corpus, data.load_inputs, featurise, mesh, end_of_text=data.end_of_text
        )
        row = reduce_pairs(eval_step(state, models.teacher_params, batch) for batch in batches)
        if score is not None:
            row |= score(whole_student(state, models.teacher_params, setup.shares_encoder))
        return row

    return evaluate


def _fingerprint(corpus: Corpus) -> str:
    """A digest of what the order of batches and their labels follow from."""
    digest = hashlib.sha256()
    for utterance, tokens, size in zip(corpus.utterances, corpus.tokens, corpus.sizes, strict=True):
        digest.update(repr((utterance.id, tokens, size)).encode())
    return digest.hexdigest()
