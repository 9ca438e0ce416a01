"""Whisper's ASKD as a `Task`: a recipe's models, data and schedules as training's functions."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import Config
from fastwhisper_jax.config.eval_sets import EMA
from fastwhisper_jax.data.batching import layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.distillation.eval_metrics import named_metrics
from fastwhisper_jax.distillation.featurise import make_featurise
from fastwhisper_jax.distillation.hidden_states import hidden_map_shapes, init_hidden_maps
from fastwhisper_jax.distillation.pair import PairShapes, own_params
from fastwhisper_jax.distillation.run_schedule import RunSchedule
from fastwhisper_jax.distillation.sums import (
    AskdConfig,
    askd_config,
    askd_metrics,
    make_eval_step,
    make_sums,
    whole_student,
)
from fastwhisper_jax.distillation.teacher_cache import cached_parts, runs_teacher_in_steps
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.input import device_batches
from fastwhisper_jax.training.metrics import DispatchedMetrics
from fastwhisper_jax.training.state import TrainState
from fastwhisper_jax.training.task import Params, SelfTeacher, Task

# Error rates of a student with these parameters on all eval sets, by the names that are logged.
ScoreParams = Callable[[Params], dict[str, float]]


class RunData(NamedTuple):
    """What a run reads.

    Attributes:
        train: the corpus to train on.
        eval: the corpora to evaluate on, by the names of their sets; may be empty.
        load_inputs: makes the encoder's input for rows of `train`, or reads what is cached of it.
        load_eval_inputs: the same for rows of `eval`.
        end_of_text: the token that ends and pads labels.
    """

    train: Corpus
    eval: Mapping[str, Corpus]
    load_inputs: LoadInputs
    load_eval_inputs: LoadInputs
    end_of_text: int


def make_task(
    config: Config,
    models: PairShapes,
    schedule: RunSchedule,
    mesh: Mesh,
    load_student: Callable[[], Params],
    data: RunData | None = None,
    score_params: ScoreParams | None = None,
) -> Task:
    """Binds a recipe's models, data and schedules to the functions that training is given.

    Args:
        config: the recipe.
        models: sizes of teacher and student.
        schedule: weights and phases by step.
        mesh: where to run.
        load_student: () -> the student's parameters before its first update, float32, on the host.
        data: what to read; None where only shapes are wanted, and no batch is made.
        score_params: error rates of a student with these parameters.
    """
    objective, shares_encoder = config.objective, models.student.shares_encoder
    split = functools.partial(
        own_params, frozen=config.student.frozen, shares_encoder=shares_encoder
    )
    askd = askd_config(config, models, mesh)
    runs_teacher = schedule.teacher_end > 0
    parts = cached_parts(config, models, runs_teacher)
    teacher_seconds = None
    if runs_teacher_in_steps(config, parts, runs_teacher):
        teacher_seconds = models.teacher_dims.context_seconds
    map_shapes = hidden_map_shapes(askd.comparison, models)

    def with_maps(parts: tuple[Params, Params], maps: Params) -> tuple[Params, Params]:
        return parts[0] | maps, parts[1]

    augments = functools.partial(
        make_featurise, models.teacher_dims.n_mels, config.data, config.training.seed
    )
    task = Task(
        initial_params=lambda: with_maps(
            split(load_student()), init_hidden_maps(map_shapes, config.training.seed)
        ),
        param_shapes=with_maps(split(models.student_params), map_shapes),
        sharding_rules=RULES,
        sums=make_sums(askd),
        target_count=lambda batch: batch["label_mask"].sum(),
        weights_at=schedule.weights_at,
        phase_at=schedule.phase,
        metrics=askd_metrics,
        collate=_no_data,
        featurise=augments(
            augments=True,
            teacher_seconds=teacher_seconds,
            keeps_frames="encoder" in askd.comparison.pairs,
        ),
        score=lambda state, teacher_params: {},
        self_teacher=SelfTeacher(
            begin_step=schedule.self_begin,
            ema_decay=objective.ema_decay if objective.self_teacher == "ema" else None,
            snapshot_steps=objective.snapshot_steps,
        )
        if schedule.keeps_self_teacher
        else None,
    )
    if data is None:
        return task
    task = task._replace(collate=_make_collate(data.train, data.load_inputs, data.end_of_text))
    if not data.eval:
        return task
    evaluation = task._replace(featurise=augments(augments=False))
    windows = models.student.windows
    return task._replace(
        score=_make_score(config, askd, evaluation, data, windows, mesh, score_params)
    )


def _no_data(*_: Any) -> Any:
    raise AssertionError("this task was made without data")


def _make_collate(corpus: Corpus, load_inputs: LoadInputs, end_of_text: int) -> Any:
    return lambda layout, local_rows: collate(
        layout, corpus, load_inputs, end_of_text=end_of_text, local_rows=local_rows
    )


def _make_score(
    config: Config,
    askd: AskdConfig,
    evaluation: Task,
    data: RunData,
    windows: Windows,
    mesh: Mesh,
    score_params: ScoreParams | None,
) -> Callable[[TrainState, Params], dict[str, float]]:
    """Builds the evaluation of a state: loss a token on each eval set, and error rates."""
    eval_step = jax.jit(make_eval_step(askd))
    batch_size, buckets = config.training.eval_batch_size, config.data.target_buckets
    sets = {
        name: (
            layouts_in_order(corpus.sizes, batch_size, buckets, windows),
            _make_collate(corpus, data.load_eval_inputs, data.end_of_text),
        )
        for name, corpus in data.eval.items()
    }

    def score_student(state: TrainState, teacher_params: Params) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, (layouts, collate_set) in sets.items():
            batches = device_batches(
                layouts, collate_set, evaluation.featurise, mesh, threads=config.data.threads
            )
            metrics = DispatchedMetrics()
            for batch in batches:
                metrics.add(eval_step(state, teacher_params, batch))
            row |= named_metrics(name, metrics.reduce())
        if score_params is not None:
            row |= score_params(
                whole_student(
                    state.params, state.frozen_params, teacher_params, askd.shares_encoder
                )
            )
        return row

    def score(state: TrainState, teacher_params: Params) -> dict[str, float]:
        row, ema_rule = score_student(state, teacher_params), evaluation.self_teacher
        if ema_rule is None or not config.training.evaluate_ema:
            return row
        # The update after step `begin_step` is the first that copies and follows the student.
        if int(state.step) > ema_rule.begin_step:
            assert state.self_teacher_params is not None
            ema = dataclasses.replace(state, params=state.self_teacher_params)
            row |= named_metrics(EMA, score_student(ema, teacher_params))
        return row

    return score
