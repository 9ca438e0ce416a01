"""`fastwhisper train`: reads everything a recipe names, checks it, and hands it to the loop."""

import functools
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.config.recipe import to_json
from fastwhisper_jax.data.corpus import Corpus, read_corpus
from fastwhisper_jax.data.loader import LoadInputs, audio_inputs
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.array_store import params_digest
from fastwhisper_jax.distillation.assembly import (
    Models,
    RunData,
    Score,
    abstract_state,
    fingerprint,
    make_batch_schedule,
)
from fastwhisper_jax.distillation.fill_caches import with_caches
from fastwhisper_jax.distillation.model_options import check_tensor_axis, model_options
from fastwhisper_jax.distillation.pair import Pair, load_pair, place_models
from fastwhisper_jax.distillation.run_directory import (
    check_run_dir,
    check_writable,
    holds_run,
    resolved,
    write_config,
)
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.corpus_batches import (
    default_normalizer,
    detokenizer,
    evaluation_batches,
    make_transcribe,
)
from fastwhisper_jax.evaluation.evaluate import evaluate
from fastwhisper_jax.files import Path, path_of
from fastwhisper_jax.models.whisper.hf_names import parameter_count
from fastwhisper_jax.models.whisper.timestamp_labels import check_timestamps
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.training.distributed import check_agreement, wait_for_all
from fastwhisper_jax.training.loop import train
from fastwhisper_jax.training.sharding import check_batch, make_mesh

Say = Callable[[str], None]


def run(config: Config, run_dir: Path, say: Say) -> None:
    """Trains the student of a recipe, from the beginning or from the run's newest checkpoint.

    Args:
        config: recipe and overrides.
        run_dir: of this run and no other.
        say: prints a line for the user; process 0 alone does.

    Raises:
        InputError: before anything is written, whatever of the input cannot be used.
    """
    if jax.process_index() != 0:
        say = _say_nothing
    config = resolved(config)
    parts = _prepare(config, run_dir, say)
    # The models that were read to be checked are let go by now: they may be most of the memory.
    train(config, run_dir, load_student=lambda: load_pair(config).student_params, **parts._asdict())
    say(f"done; export the student with: fastwhisper export {run_dir} --out DIR")


class _Parts(NamedTuple):
    """What `train` takes beside the recipe."""

    models: Models
    data: RunData
    schedule: BatchSchedule
    mesh: Mesh
    score: Score | None


def _prepare(config: Config, run_dir: Path, say: Say) -> _Parts:
    """Reads and checks everything, and begins the run directory."""
    check_run_dir(run_dir, config)
    if config.data.encoder_cache is not None:
        check_writable("data.encoder_cache", path_of(config.data.encoder_cache))
    if not config.data.train:
        raise InputError("data.train names nothing to train on; give --data.train MANIFEST")
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    settings = config.training
    check_batch(
        "training.global_batch_size", settings.global_batch_size, mesh, settings.accumulation_steps
    )
    check_batch("training.eval_batch_size", settings.eval_batch_size, mesh)
    pair = load_pair(config)
    dims = {"teacher": pair.teacher.dims, "student": pair.student_dims}
    check_tensor_axis(dims, config.data.target_buckets, mesh)
    tokenizer = load_tokenizer(pair.teacher.folder)
    train_corpus = _corpus(config, pair, tokenizer, config.data.train)
    eval_corpus = _corpus(config, pair, tokenizer, config.data.eval) if config.data.eval else None
    if config.data.timestamp_probability:
        student = pair.student_dims
        check_timestamps(train_corpus.tokens[0].prompt, student.n_vocab, student.context_seconds)
    # Schedules, frozen paths and shardings are checked by being made.
    schedule = make_batch_schedule(config, train_corpus, pair.student_dims.context_seconds)
    total_steps = len(schedule)
    plan = make_run_schedule(config.objective, config.optimizer, total_steps)
    abstract_state(config, pair.student_params, pair.shares_encoder, plan, mesh)

    say(f"teacher: {config.teacher.path}, {parameter_count(pair.teacher.dims):,} parameters")
    say(
        f"student: {parameter_count(pair.student_dims):,} parameters, encoder layers "
        f"{_list(pair.encoder_layers)} and decoder layers {_list(pair.decoder_layers)} of "
        f"{config.student.path or 'the teacher'}; frozen: "
        f"{', '.join(config.student.frozen) or 'nothing'}"
    )
    say(f"train on {train_corpus.summary}")
    if eval_corpus is not None:
        say(f"evaluate on {eval_corpus.summary}")
    say(
        f"{total_steps} steps of {settings.global_batch_size} utterances on {mesh.size} "
        f"{jax.devices()[0].platform} device(s), mesh {_shape(mesh)}; run directory {run_dir}"
    )

    models = place_models(pair, config.teacher.dtype, mesh)
    end_of_text = decoding_rules(pair.teacher.generation_config).end_of_text
    load_audio = functools.partial(audio_inputs, samples=pair.teacher.dims.n_samples)
    data = RunData(train_corpus, eval_corpus, load_audio, load_audio, end_of_text)
    if config.data.encoder_cache is not None:
        runs_teacher = plan.teacher_end > 0
        data = with_caches(config, pair.teacher, models.teacher_params, data, mesh, runs_teacher)
    score = None
    if eval_corpus is not None:
        score = _make_score(config, pair, eval_corpus, data.load_eval_inputs, tokenizer, mesh)
    _begin(config, run_dir, pair, data)
    return _Parts(models, data, schedule, mesh, score)


def _begin(config: Config, run_dir: Path, pair: Pair, data: RunData) -> None:
    """Writes the config once every process has read the same and has found no fault in it."""
    corpora = [fingerprint(corpus) for corpus in (data.train, data.eval) if corpus is not None]
    check_agreement("recipe", sha256(to_json(config).encode()).hexdigest())
    if jax.process_count() > 1:  # it takes seconds
        models = {"teacher": pair.teacher.params}
        if config.student.path is not None:
            models["student"] = pair.student_params
        check_agreement("teacher or student", params_digest(models))
    check_agreement("data", sha256(repr(corpora).encode()).hexdigest())
    if jax.process_index() == 0:
        write_config(run_dir, config)
    wait_for_all("config is written")
    if not holds_run(run_dir):
        raise InputError(
            f"process {jax.process_index()} does not see in {run_dir} what process 0 writes there; "
            "processes on several hosts need a --run-dir that all of them see: gs://BUCKET/FOLDER, "
            "or a folder on a shared disk"
        )


def _say_nothing(line: str) -> None:
    pass


def _corpus(config: Config, pair: Pair, tokenizer: Any, sources: Sequence[str]) -> Corpus:
    longest = min(pair.teacher.dims.n_text_ctx, pair.student_dims.n_text_ctx)
    if config.data.target_buckets[-1] > longest:
        raise InputError(
            f"data.target_buckets ends with {config.data.target_buckets[-1]}, but the models hold "
            f"{longest} target positions; end it with at most {longest}"
        )
    return read_corpus(
        sources,
        tokenizer,
        language=config.data.language,
        task=config.data.task,
        buckets=config.data.target_buckets,
        context_seconds=pair.student_dims.context_seconds,
    )


def _make_score(
    config: Config,
    pair: Pair,
    corpus: Corpus,
    load_inputs: LoadInputs,
    tokenizer: Any,
    mesh: Mesh,
) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Word and character error rate of a student on the eval set."""
    rules = decoding_rules(pair.teacher.generation_config)
    options = model_options(mesh, config.student.dtype)
    transcribe = make_transcribe(pair.student_dims, options, rules, config.training.max_new_tokens)
    normalizer = default_normalizer(corpus, config.data.task)

    def score(params: dict[str, Any]) -> dict[str, float]:
        report, _ = evaluate(
            transcribe,
            params,
            evaluation_batches(
                corpus, load_inputs, mesh, config.training.eval_batch_size, config.data.threads
            ),
            detokenizer(tokenizer),
            rules.end_of_text,
            normalizer,
        )
        return {"eval_wer": report.wer, "eval_cer": report.cer}

    return score


def _shape(mesh: Mesh) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())


def _list(layers: Sequence[int]) -> str:
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))
