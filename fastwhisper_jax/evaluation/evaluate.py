"""Evaluation: batches go in, a report and the hypotheses behind it come out.

The caller hands in what evaluation does not own: batches (audio, log-mel or encoder states, with
prompts and references), the jitted `decoding.make_transcribe`, and the tokenizer's decode. So the
command line and the training loop are served by the same function.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.error_rates import error_rates
from fastwhisper_jax.evaluation.normalizers import normalizer
from fastwhisper_jax.models.whisper.forward import Params


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Utterances to transcribe at once.

    Attributes:
        inputs: what the encoder takes: an array or tree of arrays, B rows each.
        prompt: (B, P) int32, forced tokens of each row (so languages may differ within a batch).
        ids: names of the utterances, at most B; rows beyond them only fill the batch up.
        references: what was said, one an id.
        durations_seconds: length of the speech, without padding, one an id.
    """

    inputs: Any
    prompt: np.ndarray | jax.Array
    ids: Sequence[str]
    references: Sequence[str]
    durations_seconds: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a model scored on a data set.

    Attributes:
        wer: word error rate, a fraction; digit error rate with the `digits` normaliser.
        cer: character error rate, a fraction.
        substitutions: words.
        deletions: words.
        insertions: words.
        reference_words: words of the normalised references.
        utterances: how many were scored.
        audio_seconds: their length without padding.
        wall_seconds: from the first batch asked for to the last text decoded: reading audio,
            features, encoder, decoder. Model loading and compilation are left out.
        rtfx: audio_seconds / wall_seconds.
        parameters: number of weights, the tied embedding counted once.
        normalizer: its name; "+strip-diacritics" is appended where accents were dropped.
        model: what was evaluated.
        data: what it was evaluated on.
        load_seconds: reading the model, as the caller measured it.
        compile_seconds: tracing and compiling, 0 if compiled before.
    """

    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int
    utterances: int
    audio_seconds: float
    wall_seconds: float
    rtfx: float
    parameters: int
    normalizer: str
    model: str
    data: str
    load_seconds: float
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One utterance: what was said and what was recognised, before normalising."""

    id: str
    reference: str
    hypothesis: str
    audio_seconds: float


def evaluate(
    transcribe: jax.stages.Wrapped,
    params: Params,
    batches: Iterable[EvaluationBatch],
    detokenize: Callable[[Sequence[int]], str],
    end_of_text: int,
    normalizer_name: str,
    strip_diacritics: bool = False,
    model: str = "",
    data: str = "",
    load_seconds: float = 0.0,
) -> tuple[Report, list[Hypothesis]]:
    """Transcribes all batches and scores them.

    Host and device overlap: a batch is dispatched before the texts of the one before are fetched.

    Args:
        transcribe: the result of `decoding.make_transcribe`; keep it between calls.
        params: parameters of the model, on the device.
        batches: read once, in order. The first one sets the batch size; a shorter one (the last)
            is filled up to it, so that nothing compiles twice.
        detokenize: tokens of one row, end_of_text and what follows cut off, to text.
        end_of_text: the token that `transcribe` ends and fills rows with.
        normalizer_name: see `normalizers.normalizer`.
        strip_diacritics: see `normalizers.normalizer`.
        model: name for the report.
        data: name for the report.
        load_seconds: for the report.

    Returns:
        The report, and one hypothesis an utterance in the order given.

    Raises:
        InputError: no utterance, or references without a single word.
    """
    normalize = normalizer(normalizer_name, strip_diacritics)
    hypotheses: list[Hypothesis] = []
    compile_seconds = 0.0
    batch_size = 0
    pending: tuple[EvaluationBatch, jax.Array] | None = None
    start = time.perf_counter()
    for batch in batches:
        batch_size = batch_size or len(batch.prompt)
        inputs, prompt = _filled(batch, batch_size)
        arguments = (params, inputs, prompt, np.arange(batch_size) < len(batch.ids))
        # Compiled here to be timed; the call below finds it in jit's own cache, and so does this
        # line from the second batch on.
        compile_start = time.perf_counter()
        transcribe.lower(*arguments).compile()
        compile_seconds += time.perf_counter() - compile_start
        dispatched = (batch, transcribe(*arguments))
        if pending is not None:
            hypotheses += _texts(*pending, detokenize, end_of_text)
        pending = dispatched
    if pending is None:
        raise InputError(f"{data or 'the data'} holds no utterance to evaluate; give at least one")
    hypotheses += _texts(*pending, detokenize, end_of_text)
    wall_seconds = time.perf_counter() - start - compile_seconds

    rates = error_rates(
        [row.reference for row in hypotheses], [row.hypothesis for row in hypotheses], normalize
    )
    audio_seconds = sum(row.audio_seconds for row in hypotheses)
    report = Report(
        **dataclasses.asdict(rates),
        utterances=len(hypotheses),
        audio_seconds=audio_seconds,
        wall_seconds=wall_seconds,
        rtfx=audio_seconds / wall_seconds,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        normalizer=normalizer_name + ("+strip-diacritics" if strip_diacritics else ""),
        model=model,
        data=data,
        load_seconds=load_seconds,
        compile_seconds=compile_seconds,
    )
    return report, hypotheses


def _filled(batch: EvaluationBatch, batch_size: int) -> tuple[Any, Any]:
    """The batch's inputs and prompt, filled up to `batch_size` rows with copies of the last one."""
    missing = batch_size - len(batch.prompt)
    if missing == 0:
        return batch.inputs, batch.prompt

    def fill(rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])

    return jax.tree.map(fill, (batch.inputs, batch.prompt))


def _texts(
    batch: EvaluationBatch,
    tokens: jax.Array,
    detokenize: Callable[[Sequence[int]], str],
    end_of_text: int,
) -> list[Hypothesis]:
    """Waits for the tokens (B, T) of a batch and decodes those of its utterances."""
    if tokens.is_fully_addressable:
        rows = np.asarray(tokens)
    else:
        rows = multihost_utils.process_allgather(tokens, tiled=True)
    texts = []
    for row in rows[: len(batch.ids)].tolist():
        length = row.index(end_of_text) if end_of_text in row else len(row)
        texts.append(detokenize(row[:length]).strip())
    lines = zip(batch.ids, batch.references, texts, batch.durations_seconds, strict=True)
    return [Hypothesis(*line) for line in lines]
