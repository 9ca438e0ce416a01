"""Whisper's ASKD as a `Task`: a recipe's models, data and schedules as training's functions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.batching import layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.distillation.collate import collate
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
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.input import device_batches
from fastwhisper_jax.training.metrics import DispatchedMetrics
from fastwhisper_jax.training.state import TrainState
from fastwhisper_jax.training.task import Params, SelfTeacher, Task

# Error rates of a student with these parameters, by the names that are logged.
ScoreParams = Callable[[Params], dict[str, float]]


class RunData(NamedTuple):
    """What a run reads.

    Attributes:
        train: the corpus to train on.
        eval: the corpus to evaluate on, or None.
        load_inputs: makes the encoder's input for rows of `train`, or reads what is cached of it.
        load_eval_inputs: the same for `eval`.
        end_of_text: the token that ends and pads labels.
    """

    train: Corpus
    eval: Corpus | None
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
        featurise=augments(augments=True, keeps_frames="encoder" in askd.comparison.pairs),
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
    if data.eval is None:
        return task
    evaluation = task._replace(
        collate=_make_collate(data.eval, data.load_eval_inputs, data.end_of_text),
        featurise=augments(augments=False),
    )
    return task._replace(score=_make_score(config, askd, evaluation, data.eval, mesh, score_params))


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
    corpus: Corpus,
    mesh: Mesh,
    score_params: ScoreParams | None,
) -> Callable[[TrainState, Params], dict[str, float]]:
    """Builds the evaluation of a state: loss a token on the eval set, and error rates."""
    eval_step = jax.jit(make_eval_step(askd))
    layouts = layouts_in_order(
        corpus.sizes, config.training.eval_batch_size, config.data.target_buckets
    )

    def score(state: TrainState, teacher_params: Params) -> dict[str, float]:
        batches = device_batches(
            layouts, evaluation.collate, evaluation.featurise, mesh, threads=config.data.threads
        )
        metrics = DispatchedMetrics()
        for batch in batches:
            metrics.add(eval_step(state, teacher_params, batch))
        row = metrics.reduce()
        if score_params is not None:
            row |= score_params(
                whole_student(
                    state.params, state.frozen_params, teacher_params, askd.shares_encoder
                )
            )
        return row

    return score
