"""`fastwhisper train`: reads everything a recipe names, checks it, and hands it to the loop."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.commands.models import Pair, load_pair, place_params
from fastwhisper_jax.commands.run_directory import check_run_dir, write_config
from fastwhisper_jax.commands.scoring import detokenizer, evaluation_batches, transcriber
from fastwhisper_jax.config import Config
from fastwhisper_jax.data.corpus import Corpus, read_corpus
from fastwhisper_jax.data.features import log_mel_spectrogram
from fastwhisper_jax.data.loader import LoadInputs, Rows, audio_inputs
from fastwhisper_jax.data.tokens import load_tokenizer
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.decoding import decoding_rules
from fastwhisper_jax.evaluation.evaluate import evaluate
from fastwhisper_jax.interop.names import parameter_count
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.dimensions import ModelOptions
from fastwhisper_jax.training import encoder_cache
from fastwhisper_jax.training.assembly import Models, RunData
from fastwhisper_jax.training.loop import train
from fastwhisper_jax.training.progress import progress
from fastwhisper_jax.training.sharding import check_batch, make_mesh, put_batch

Say = Callable[[str], None]


def run(config: Config, run_dir: Path, say: Say) -> None:
    """Trains the student of a recipe, from the beginning or from the run's newest checkpoint.

    Args:
        config: recipe and overrides.
        run_dir: of this run and no other.
        say: prints a line for the user.

    Raises:
        InputError: before anything is written, whatever of the input cannot be used.
    """
    check_run_dir(run_dir, config)
    if not config.data.train:
        raise InputError("data.train names nothing to train on; give --data.train MANIFEST")
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    settings = config.training
    check_batch(
        "training.global_batch_size", settings.global_batch_size, mesh, settings.accumulation_steps
    )
    check_batch("training.eval_batch_size", settings.eval_batch_size, mesh)
    pair = load_pair(config)
    tokenizer = load_tokenizer(pair.teacher.folder)
    train_corpus = _corpus(config, pair, tokenizer, config.data.train)
    eval_corpus = _corpus(config, pair, tokenizer, config.data.eval) if config.data.eval else None
    write_config(run_dir, config)

    say(f"teacher {config.teacher.path}: {_size(parameter_count(pair.teacher.dims))} parameters")
    say(
        f"student: {_size(parameter_count(pair.student_dims))} parameters, encoder layers "
        f"{_list(pair.encoder_layers)}, decoder layers {_list(pair.decoder_layers)}, "
        f"frozen: {', '.join(config.student.frozen) or 'nothing'}"
    )
    say(f"train on {train_corpus.summary}")
    if eval_corpus is not None:
        say(f"evaluate on {eval_corpus.summary}")
    say(f"{mesh.size} {jax.devices()[0].platform} device(s), mesh {dict(mesh.shape)}")

    teacher_params = place_params(pair.teacher.params, config.teacher.dtype, mesh)
    models = Models(pair.teacher.dims, teacher_params, pair.student_dims, pair.student_params)
    corpora = [train_corpus] if eval_corpus is None else [train_corpus, eval_corpus]
    load_inputs = _load_inputs(config, pair, teacher_params, corpora, mesh)
    rules = decoding_rules(pair.teacher.generation_config)
    data = RunData(train_corpus, eval_corpus, load_inputs, rules.end_of_text)
    score = None
    if eval_corpus is not None:
        score = _make_score(config, pair, eval_corpus, load_inputs, tokenizer, mesh)
    train(config, run_dir, models, data, mesh, score)
    say(f"done; export the student with: fastwhisper export {run_dir} --out DIR")


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
        context_seconds=config.student.context_seconds,
    )


def _load_inputs(
    config: Config,
    pair: Pair,
    teacher_params: dict[str, Any],
    corpora: Sequence[Corpus],
    mesh: Mesh,
) -> LoadInputs:
    """Audio, or the encoder cache, filled first."""
    dims = pair.teacher.dims
    load_audio = functools.partial(audio_inputs, samples=dims.n_samples)
    if config.data.encoder_cache is None:
        return load_audio
    options = ModelOptions(dtype=config.teacher.dtype)
    utterances = [utterance for corpus in corpora for utterance in corpus.utterances]
    cache = encoder_cache.open_cache(
        Path(config.data.encoder_cache), utterances, pair.teacher.params["encoder"], dims, options
    )
    absent = encoder_cache.missing(cache, utterances)

    @jax.jit
    def encode(params: dict[str, Any], audio: jax.Array) -> jax.Array:
        log_mel = log_mel_spectrogram(audio, dims.n_mels)
        return whisper.encode(params, dims, log_mel, options).astype(np.float16)

    def encode_rows(rows: Rows) -> np.ndarray:
        audio = put_batch({"audio": load_audio(rows)["audio"]}, mesh)["audio"]
        states = encode(teacher_params, audio)
        shards = {shard.index[0].start or 0: shard.data for shard in states.addressable_shards}
        return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])

    if absent:
        shown = jax.process_index() == 0
        with progress(len(absent), "encoder cache", "utterances", shown=shown) as advance:
            encoder_cache.fill(cache, absent, encode_rows, config.training.eval_batch_size, advance)
    return cache.read


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
    options = ModelOptions(dtype=config.student.dtype)
    transcribe = transcriber(pair.student_dims, options, rules, config.training.max_new_tokens)
    is_english = all((u.language or config.data.language) == "en" for u in corpus.utterances)

    def score(params: dict[str, Any]) -> dict[str, float]:
        report, _ = evaluate(
            transcribe,
            params,
            evaluation_batches(corpus, load_inputs, mesh, config.training.eval_batch_size),
            detokenizer(tokenizer),
            rules.end_of_text,
            "english" if is_english else "basic",
        )
        return {"eval_wer": report.wer, "eval_cer": report.cer}

    return score


def _size(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M"


def _list(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
