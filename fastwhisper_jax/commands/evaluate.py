"""`fastwhisper evaluate`: error rates and speed of a model in Hugging Face weights."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.corpus import read_corpus
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import place_params
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.corpus_batches import (
    default_normalizer,
    detokenizer,
    evaluation_batches,
    make_transcribe,
)
from fastwhisper_jax.evaluation.evaluate import EvaluationBatch, Report, evaluate
from fastwhisper_jax.evaluation.reports import check_report_path, hypotheses_path, write_report
from fastwhisper_jax.export.hf_load import load_model, resolve_model
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.progress import Advance, progress
from fastwhisper_jax.training.sharding import check_batch, make_mesh


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command, as `--help` describes them."""

    model: str
    data: str
    report: Path | None = None
    batch_size: int = 8
    limit: int | None = None
    max_new_tokens: int = 224
    beam: int = 1
    normalizer: str | None = None
    strip_diacritics: bool = False
    language: str = "en"
    task: str = "transcribe"
    dtype: str = "float32"


def run(options: Options) -> Report:
    """Transcribes a data set with a model, and scores it.

    Raises:
        InputError: model, data or an option cannot be used; nothing is written then.
    """
    if options.report is not None:
        check_report_path(options.report)
    for name in ("batch_size", "limit", "max_new_tokens", "beam"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} must be at least 1")
    mesh = make_mesh(-1, 1)
    check_batch("--batch-size", options.batch_size, mesh)
    start = time.perf_counter()
    model = load_model(resolve_model(options.model))
    tokenizer = load_tokenizer(model.folder)
    params = place_params(model.params, options.dtype, mesh)
    load_seconds = time.perf_counter() - start
    corpus = read_corpus(
        [options.data],
        tokenizer,
        language=options.language,
        task=options.task,
        buckets=[model.dims.n_text_ctx],
        context_seconds=model.dims.context_seconds,
    )
    corpus = _taken(corpus, range(len(corpus.utterances))[: options.limit])
    # The longest first: a batch is decoded until its last text ends, so texts of about one length
    # belong together.
    order = sorted(range(len(corpus.sizes)), key=lambda i: -corpus.sizes[i].seconds)
    rules = decoding_rules(model.generation_config)
    how = model_options(mesh, options.dtype)
    transcribe = make_transcribe(model.dims, how, rules, options.max_new_tokens, options.beam)
    load_audio = functools.partial(audio_inputs, samples=model.dims.n_samples)
    with progress(len(corpus.utterances), "evaluate", "utterances") as advance:
        advance.say(corpus.summary)
        by_length = _taken(corpus, order)
        batches = evaluation_batches(by_length, load_audio, mesh, options.batch_size)
        report, hypotheses = evaluate(
            transcribe,
            params,
            (_counted(batch, advance) for batch in batches),
            detokenizer(tokenizer),
            rules.end_of_text,
            options.normalizer or default_normalizer(corpus, options.task),
            options.strip_diacritics,
            model=options.model,
            data=options.data,
            load_seconds=load_seconds,
        )
    if options.report is not None:
        in_order = dict(zip(order, hypotheses, strict=True))
        write_report(report, [in_order[i] for i in range(len(order))], options.report)
    return report


def _taken(corpus: Corpus, indices: Sequence[int]) -> Corpus:
    """The utterances with these numbers, in this order."""
    return dataclasses.replace(
        corpus,
        utterances=tuple(corpus.utterances[i] for i in indices),
        tokens=tuple(corpus.tokens[i] for i in indices),
        sizes=tuple(corpus.sizes[i] for i in indices),
    )


def _counted(batch: EvaluationBatch, advance: Advance) -> EvaluationBatch:
    advance(len(batch.ids))
    return batch


def summary(report: Report, path: Path | None) -> str:
    """The report in a few lines for a reader."""
    rate = "digit error rate" if report.normalizer.startswith("digits") else "WER"
    lines = [
        f"{report.model} on {report.data}: {report.utterances} utterances, "
        f"{report.audio_seconds:.1f} s of audio, {report.normalizer} normaliser",
        f"  {rate} {report.wer:.2%}: {report.substitutions} substitutions, "
        f"{report.deletions} deletions and {report.insertions} insertions in "
        f"{report.reference_words} words",
        f"  CER {report.cer:.2%}",
        f"  {report.rtfx:.2f} x real time: {report.wall_seconds:.1f} s, without "
        f"{report.load_seconds:.1f} s of loading and {report.compile_seconds:.1f} s of compiling",
        f"  {report.parameters:,} parameters",
    ]
    if path is not None:
        lines.append(f"  written: {path} and {hypotheses_path(path)}")
    return "\n".join(lines)
