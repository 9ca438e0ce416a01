"""The pieces of a run, made from its config, its models and its data."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.batching import BatchRules, layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.run_schedule import RunSchedule
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.sharding_rules import RULES
from fastwhisper_jax.training.input import device_batches, make_featurise
from fastwhisper_jax.training.metrics import Dispatched
from fastwhisper_jax.training.sharding import put_array, tree_shardings
from fastwhisper_jax.training.state import TrainState, init_state, split_params, whole_student
from fastwhisper_jax.training.step import Phase, StepConfig, make_eval_step, make_train_step

Score = Callable[[dict[str, Any]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Models:
    """Teacher and student of a run.

    Attributes:
        teacher_dims, student_dims: sizes.
        teacher_params: on the mesh, in the teacher's dtype.
        student_params: shapes and dtypes of the student's parameters.
        shares_encoder: the student's encoder is the teacher's, frozen: it is run once for both.
    """

    teacher_dims: ModelDimensions
    teacher_params: dict[str, Any]
    student_dims: ModelDimensions
    student_params: dict[str, Any]
    shares_encoder: bool


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        train: to train on.
        eval: to evaluate on, or None.
        load_inputs: the encoder's input of rows of `train`, or what is cached of them.
        load_eval_inputs: the same of `eval`.
        end_of_text: token that ends and pads labels.
    """

    train: Corpus
    eval: Corpus | None
    load_inputs: LoadInputs
    load_eval_inputs: LoadInputs
    end_of_text: int


def make_batch_schedule(config: Config, corpus: Corpus, context_seconds: float) -> BatchSchedule:
    """The batches of the run; `context_seconds` is the student's window."""
    rules = BatchRules(
        global_batch_size=config.training.global_batch_size,
        buckets=config.data.target_buckets,
        context_seconds=context_seconds,
        seed=config.training.seed,
        join_probability=config.data.concatenate_probability,
        timestamp_probability=config.data.timestamp_probability,
    )
    if config.training.steps is not None:
        return BatchSchedule(corpus.sizes, rules, steps=config.training.steps)
    return BatchSchedule(corpus.sizes, rules, epochs=config.training.epochs)


def make_step_config(config: Config, models: Models, plan: RunSchedule, mesh: Mesh) -> StepConfig:
    """Everything static about the run's step."""
    objective, student = config.objective, config.student
    return StepConfig(
        teacher_dims=models.teacher_dims,
        student_dims=models.student_dims,
        chunk_tokens=objective.chunk_tokens,
        teacher_options=model_options(mesh, config.teacher.dtype),
        student_options=model_options(
            mesh,
            student.dtype,
            student.rematerialise,
            student.dropout,
            trains_encoder="encoder" not in student.frozen,
        ),
        shares_encoder=models.shares_encoder,
        temperature=objective.temperature,
        adaptive=objective.adaptive_gate,
        self_begin=plan.self_begin,
        ema_decay=objective.ema_decay if objective.self_teacher == "ema" else None,
        snapshot_steps=objective.snapshot_steps,
        accumulation_steps=config.training.accumulation_steps,
        seed=config.training.seed,
    )


def jitted_step(
    setup: StepConfig, phase: Phase, plan: RunSchedule, shardings: TrainState, mesh: Mesh
) -> Any:
    """The step of one phase under `jax.jit`: what trains, and what a plan compiles."""
    step = make_train_step(
        setup, phase, plan.weights_at, plan.learning_rate_at, plan.optimizer, mesh
    )
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def abstract_state(
    config: Config,
    student_params: dict[str, Any],
    shares_encoder: bool,
    plan: RunSchedule,
    mesh: Mesh,
) -> TrainState:
    """Shapes, dtypes and shardings of the run's state; `student_params` may be shapes too."""
    parts = _own_params(config, student_params, shares_encoder)
    shapes = jax.eval_shape(
        lambda p, f: init_state(p, f, plan.optimizer, plan.keeps_self_teacher), *parts
    )
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        tree_shardings(shapes, RULES, mesh),
    )


def first_state(
    config: Config,
    student_params: dict[str, Any],
    shares_encoder: bool,
    plan: RunSchedule,
    shardings: TrainState,
) -> TrainState:
    """The state before the first update, on the mesh.

    Args:
        config: the recipe.
        student_params: float32, on the host; the encoder is not read where it is shared.
        shares_encoder: as of `Models`.
        plan: of the run.
        shardings: of the state.
    """
    parts = _own_params(config, student_params, shares_encoder)
    init = jax.jit(
        lambda p, f: init_state(p, f, plan.optimizer, plan.keeps_self_teacher),
        donate_argnums=(0, 1),
        out_shardings=shardings,
    )
    return init(*jax.tree.map(put_array, parts, (shardings.params, shardings.frozen_params)))


def _own_params(
    config: Config, student_params: dict[str, Any], shares_encoder: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    params, frozen_params = split_params(student_params, config.student.frozen)
    if shares_encoder:
        frozen_params.pop("encoder")
    return params, frozen_params


def make_evaluate(
    config: Config,
    setup: StepConfig,
    models: Models,
    data: RunData,
    mesh: Mesh,
    score: Score | None,
) -> Callable[[TrainState], dict[str, float]]:
    """Builds the evaluation of a state: loss a token on the eval set, and what `score` returns."""
    corpus = data.eval
    if corpus is None:
        return lambda state: {}
    featurise = make_featurise(models.teacher_dims.n_mels, config.data, 0, augments=False)
    eval_step = jax.jit(make_eval_step(setup, mesh))
    plans = layouts_in_order(
        corpus.sizes, config.training.eval_batch_size, config.data.target_buckets
    )

    def evaluate(state: TrainState) -> dict[str, float]:
        batches = device_batches(
            plans,
            corpus,
            data.load_eval_inputs,
            featurise,
            mesh,
            end_of_text=data.end_of_text,
            threads=config.data.threads,
        )
        metrics = Dispatched()
        for batch in batches:
            metrics.add(eval_step(state, models.teacher_params, batch))
        row = metrics.reduce()
        if score is not None:
            row |= score(whole_student(state, models.teacher_params, setup.shares_encoder))
        return row

    return evaluate


def fingerprint(corpus: Corpus) -> str:
    """A digest of what the order of batches and their labels follow from."""
    digest = hashlib.sha256()
    for utterance, tokens, size in zip(corpus.utterances, corpus.tokens, corpus.sizes, strict=True):
        digest.update(repr((utterance.id, tokens, size)).encode())
    return digest.hexdigest()


def languages(corpus: Corpus) -> list[str]:
    """Codes of the languages that are spoken in a corpus, the most frequent first."""
    spoken = Counter(utterance.language for utterance in corpus.utterances if utterance.language)
    return [code for code, _ in spoken.most_common()]
