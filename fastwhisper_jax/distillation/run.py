"""A run from its recipe: read and check everything that it names, then hand it to the loop."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import jax
from jax.sharding import Mesh

from fastwhisper_jax.audio.windows import Windows, listed
from fastwhisper_jax.config import Config
from fastwhisper_jax.config.recipe import to_json
from fastwhisper_jax.data.batching import BatchRules
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.array_store import params_digest
from fastwhisper_jax.distillation.collate import whisper_row_tokens
from fastwhisper_jax.distillation.corpus import read_corpus
from fastwhisper_jax.distillation.eval_metrics import check_evaluation
from fastwhisper_jax.distillation.fill_caches import with_caches
from fastwhisper_jax.distillation.hidden_states import make_comparison, reads_labels
from fastwhisper_jax.distillation.model_options import check_tensor_axis
from fastwhisper_jax.distillation.pair import LoadedPair, load_pair, place_params
from fastwhisper_jax.distillation.run_directory import (
    check_run_dir,
    check_writable,
    holds_run,
    write_config,
)
from fastwhisper_jax.distillation.run_schedule import RunSchedule, make_run_schedule
from fastwhisper_jax.distillation.score import make_score_params
from fastwhisper_jax.distillation.task import RunData, make_task
from fastwhisper_jax.distillation.teacher_cache import CachedParts, cached_parts
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, path_of
from fastwhisper_jax.models.whisper.hf_names import parameter_count
from fastwhisper_jax.models.whisper.timestamp_labels import check_timestamps
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.training.distributed import check_agreement, wait_for_all
from fastwhisper_jax.training.loop import Run
from fastwhisper_jax.training.sharding import check_batch, make_mesh
from fastwhisper_jax.training.state import abstract_state
from fastwhisper_jax.training.step import StepConfig

Log = Callable[[str], None]


def prepare_run(config: Config, run_dir: Path, log: Log) -> Run:
    """Reads and checks what a recipe names, fills its caches, and begins the run directory.

    The models on the host are not kept: they may be most of the memory.

    Args:
        config: the resolved recipe.
        run_dir: of this run and no other.
        log: prints a line for the user.

    Raises:
        InputError: whatever cannot be used, before anything is written.
    """
    mesh = _checked_mesh(config, run_dir)
    pair = load_pair(config)
    dims = {"teacher": pair.teacher.dims, "student": pair.student.dims}
    check_tensor_axis(dims, config.data.target_buckets, mesh)
    tokenizer = load_tokenizer(pair.teacher.folder)
    read = functools.partial(_read, config, pair, tokenizer)
    train_corpus = read(config.data.train, reads_text=reads_labels(config))
    eval_corpora = {name: read(sources) for name, sources in config.data.eval_sets.items()}
    windows = pair.student.windows
    if config.data.timestamp_probability:
        prompt = train_corpus.tokens[0].prompt
        check_timestamps(prompt, pair.student.dims.n_vocab, windows.longest)
    layouts = make_batch_schedule(config, train_corpus, windows)
    schedule = make_run_schedule(config.objective, config.optimizer, len(layouts))
    make = functools.partial(
        make_task, config, pair.shapes, schedule, mesh, lambda: load_pair(config).student_params
    )
    check_evaluation(config, schedule)
    # Making the state's shapes checks schedules, frozen paths and shardings.
    abstract_state(make(), schedule.optimizer, mesh)
    parts = cached_parts(config, pair.shapes, schedule.teacher_end > 0)
    for line in _summary(config, pair, train_corpus, eval_corpora, schedule, parts, mesh, run_dir):
        log(line)

    teacher_params = place_params(pair.teacher.params, config.teacher.dtype, mesh)
    rules = decoding_rules(pair.teacher.generation_config)
    data = RunData(train_corpus, eval_corpora, audio_inputs, audio_inputs, rules.end_of_text)
    if config.data.cache is not None:
        runs_teacher = schedule.teacher_end > 0
        data = with_caches(config, pair, teacher_params, data, layouts, mesh, runs_teacher)
    score_params = None
    if eval_corpora:
        score_params = make_score_params(
            config, pair.student, rules, eval_corpora, data.load_eval_inputs, tokenizer, mesh
        )
    _begin(config, run_dir, pair, data)
    return Run(
        task=make(data, score_params),
        teacher_params=teacher_params,
        layouts=layouts,
        step_config=make_step_config(config, schedule),
        settings=config.training,
        metadata={
            "train_data": fingerprint(train_corpus),
            "eval_data": {name: fingerprint(corpus) for name, corpus in eval_corpora.items()},
            "languages": languages(train_corpus),  # for the card of an export
        },
        mesh=mesh,
        threads=config.data.threads,
    )


def _checked_mesh(config: Config, run_dir: Path) -> Mesh:
    """Checks what can be checked before any model is read; returns the run's mesh."""
    check_run_dir(run_dir, config)
    if config.data.cache is not None:
        check_writable("data.cache", path_of(config.data.cache))
    if not config.data.train:
        raise InputError("data.train names nothing to train on; give --data.train MANIFEST")
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    settings = config.training
    check_batch(
        "training.global_batch_size", settings.global_batch_size, mesh, settings.accumulation_steps
    )
    check_batch("training.eval_batch_size", settings.eval_batch_size, mesh)
    return mesh


def _read(
    config: Config,
    pair: LoadedPair,
    tokenizer: Any,
    sources: Sequence[str],
    reads_text: bool = True,
) -> Corpus:
    longest = min(pair.teacher.dims.n_text_ctx, pair.student.dims.n_text_ctx)
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
        context_seconds=pair.student.dims.context_seconds,
        reads_text=reads_text,
    )


def make_batch_schedule(config: Config, corpus: Corpus, windows: Windows) -> BatchSchedule:
    """The batch layouts of the run; `windows` are the student's."""
    rules = BatchRules(
        global_batch_size=config.training.global_batch_size,
        buckets=config.data.target_buckets,
        windows=windows,
        seed=config.training.seed,
        join_probability=config.data.concatenate_probability,
        timestamp_probability=config.data.timestamp_probability,
        longer_window_probability=config.data.longer_window_probability,
        row_tokens=whisper_row_tokens,
    )
    if config.training.steps is not None:
        return BatchSchedule(corpus.sizes, rules, steps=config.training.steps)
    return BatchSchedule(corpus.sizes, rules, epochs=config.training.epochs)


def make_step_config(config: Config, schedule: RunSchedule) -> StepConfig:
    """What is static about the run's updates."""
    return StepConfig(
        optimizer=schedule.optimizer,
        learning_rate_at=schedule.learning_rate_at,
        accumulation_steps=config.training.accumulation_steps,
        seed=config.training.seed,
    )


def _summary(
    config: Config,
    pair: LoadedPair,
    train_corpus: Corpus,
    eval_corpora: Mapping[str, Corpus],
    schedule: RunSchedule,
    parts: CachedParts,
    mesh: Mesh,
    run_dir: Path,
) -> list[str]:
    """What a run is going to do, in lines for the user."""
    student = pair.student
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    lines = [
        f"teacher: {config.teacher.path}, {parameter_count(pair.teacher.dims):,} parameters",
        f"student: {parameter_count(student.dims):,} parameters, encoder layers "
        f"{_list(student.encoder_layers)} and decoder layers {_list(student.decoder_layers)} of "
        f"{config.student.path or 'the teacher'}; frozen: "
        f"{', '.join(config.student.frozen) or 'nothing'}",
        f"train on {train_corpus.summary}",
    ]
    for name, corpus in eval_corpora.items():
        lines.append(f"evaluate on {name and f'{name}, '}{corpus.summary}")
    for stack, pairs in make_comparison(config, pair.shapes).pairs.items():
        lines.append(
            f"compare hidden states of {stack} layers {_list(pairs.student)} with those of the "
            f"teacher's {_list(pairs.teacher)}"
        )
    lines += _window_lines(config, student.windows, schedule)
    if config.data.cache is not None:
        kept = ["the teacher's decoder states"] * parts.teacher_states
        kept += ["the student's encoder states"] * parts.encoder_states
        lines.append(f"cache {config.data.cache}: {' and '.join(kept) or 'nothing to keep'}")
    lines.append(
        f"{schedule.total_steps} steps of {config.training.global_batch_size} utterances on "
        f"{mesh.size} {jax.devices()[0].platform} device(s), mesh {axes}; run directory {run_dir}"
    )
    return lines


def _window_lines(config: Config, windows: Windows, schedule: RunSchedule) -> list[str]:
    """The windows, and how many steps may be compiled for them; nothing for a single window."""
    if len(windows.seconds) == 1:
        return []
    phases = len({schedule.phase(step) for step in range(schedule.total_steps)})
    steps = len(windows.seconds) * len(config.data.target_buckets) * phases
    return [
        f"windows of {listed(windows.seconds)} s, with {windows.margin_seconds:g} s of margin; at "
        f"most {steps} compiled steps (windows x buckets x phases)"
    ]


def _list(layers: Sequence[int]) -> str:
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))


def _begin(config: Config, run_dir: Path, pair: LoadedPair, data: RunData) -> None:
    """Writes the config after all processes have read the same and found no fault in it."""
    corpora = [fingerprint(corpus) for corpus in (data.train, *data.eval.values())]
    check_agreement("recipe", sha256(to_json(config).encode()).hexdigest())
    if jax.process_count() > 1:  # hashing takes seconds
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


def fingerprint(corpus: Corpus) -> str:
    """A digest of what fixes the order of batches and their labels.

    Checkpoints keep it. It covers the text form of `UtteranceTokens` and `UtteranceSize`, so their
    names and fields must stay as they are.
    """
    digest = sha256()
    for utterance, tokens, size in zip(corpus.utterances, corpus.tokens, corpus.sizes, strict=True):
        digest.update(repr((utterance.id, tokens, size)).encode())
    return digest.hexdigest()


def languages(corpus: Corpus) -> list[str]:
    """Codes of the languages that are spoken in a corpus, the most frequent first."""
    spoken = Counter(utterance.language for utterance in corpus.utterances if utterance.language)
    return [code for code, _ in spoken.most_common()]
