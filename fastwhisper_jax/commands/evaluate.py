"""`fastwhisper evaluate`: measures the error rates and the speed of a Hugging Face model."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastwhisper_jax.arguments import EvaluateArguments
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.decoding.prefill import decoding_params
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.corpus import read_corpus
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import place_params
from fastwhisper_jax.evaluation.corpus_batches import (
    default_normalizer,
    detokenizer,
    evaluation_batches,
    make_transcribe,
)
from fastwhisper_jax.evaluation.evaluate import (
    EvaluationBatch,
    Report,
    ReportFacts,
    Scoring,
    evaluate,
)
from fastwhisper_jax.evaluation.reports import check_report_path, hypotheses_path, write_report
from fastwhisper_jax.export.hf_load import load_model, resolve_model
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.progress import Advance, progress
from fastwhisper_jax.training.sharding import check_batch, make_mesh


def run(given: EvaluateArguments) -> Report:
    """Transcribes a data set with a model and scores the texts.

    Raises:
        InputError: the model, the data or an option cannot be used. Nothing is written then.
    """
    if given.report is not None:
        check_report_path(given.report)
    mesh = make_mesh(-1, 1)
    check_batch("--batch-size", given.batch_size, mesh)
    start = time.perf_counter()
    model = load_model(resolve_model(given.model))
    tokenizer = load_tokenizer(model.folder)
    options = model_options(mesh, given.dtype)
    params = decoding_params(place_params(model.params, given.dtype, mesh), model.dims, options)
    load_seconds = time.perf_counter() - start
    windows = model.windows
    if given.window is not None:
        windows = windows.only(given.window, "--window")
    corpus = read_corpus(
        [given.data],
        tokenizer,
        language=given.language,
        task=given.task,
        buckets=[model.dims.n_text_ctx],
        context_seconds=windows.longest,
    )
    corpus = corpus.select(range(len(corpus.utterances))[: given.limit])
    limited = "" if given.limit is None else f"; the first {len(corpus.utterances)} are evaluated"
    rules = decoding_rules(model.generation_config)
    transcribe = make_transcribe(model.dims, options, rules, given.max_new_tokens, given.beam)
    scoring = Scoring(
        detokenizer(tokenizer),
        rules.end_of_text,
        given.normalizer or default_normalizer(corpus, given.task),
        given.strip_diacritics,
    )
    with progress(len(corpus.utterances), "evaluate", "utterances") as advance:
        advance.write(corpus.summary + limited)
        batches = evaluation_batches(corpus, audio_inputs, windows, mesh, given.batch_size)
        report, hypotheses = evaluate(
            transcribe,
            params,
            _counted(batches, advance),
            scoring,
            ReportFacts(given.model, given.data, load_seconds),
        )
    if given.report is not None:
        write_report(report, hypotheses, given.report)
    return report


def _counted(batches: Iterable[EvaluationBatch], advance: Advance) -> Iterator[EvaluationBatch]:
    """Yields batches and advances the progress by the utterances of each."""
    for batch in batches:
        advance(len(batch.ids))
        yield batch


def summary(report: Report, path: Path | None) -> str:
    """A few lines about a report, for the user.

    Args:
        report: what `run` returned.
        path: where the report was written; None if it was not.
    """
    rate = "digit error rate" if report.normalizer.startswith("digits") else "WER"
    lines = [
        f"{report.model} on {report.data}: {report.utterances} utterances, "
        f"{report.audio_seconds:.1f} s of audio, {report.normalizer} normaliser",
        f"  {rate} {report.wer:.2%}: {report.substitutions} substitutions, "
        f"{report.deletions} deletions and {report.insertions} insertions in "
        f"{report.reference_words} words",
        *_loops(report, rate),
        f"  CER {report.cer:.2%}",
        f"  {report.rtfx:.2f} x real time: {report.wall_seconds:.1f} s, without "
        f"{report.load_seconds:.1f} s of loading and {report.compile_seconds:.1f} s of compiling",
        f"  {report.parameters:,} parameters",
    ]
    if path is not None:
        lines.append(f"  written: {path} and {hypotheses_path(path)}")
    return "\n".join(lines)


def _loops(report: Report, rate: str) -> list[str]:
    """The line about loops, if there are any."""
    if not report.loops:
        return []
    errors = report.substitutions + report.deletions + report.insertions
    without = "no words are left without them"
    if report.wer_without_loops is not None:
        without = f"{rate} {report.wer_without_loops:.2%} without them"
    return [
        f"  loops (texts that repeat themselves or run on): {report.loops} of {report.utterances} "
        f"hypotheses with {report.loop_errors} of {errors} errors; {without}"
    ]
