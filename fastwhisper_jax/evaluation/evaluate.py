"""Evaluation: transcribes batches, and reports error rates and speed.

The caller provides the batches, the jitted function that transcribes them, and the tokenizer's
decode. So the command line and the training loop use the same function.
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
        inputs: what `transcribe` takes: an array or tree of arrays, B rows each.
        prompt: (B, P) int32, the prompt of each row; languages may differ within a batch.
        ids: names of the utterances, at most B; later rows only fill the batch up.
        references: what was said, for each of `ids`.
        durations_seconds: length of the speech without padding, for each of `ids`.
    """

    inputs: Any
    prompt: np.ndarray | jax.Array
    ids: Sequence[str]
    references: Sequence[str]
    durations_seconds: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Report:
    """A model's error rates and speed on a data set.

    Attributes:
        wer: word error rate, a fraction; the digit error rate with the `digits` normaliser.
        cer: character error rate, a fraction.
        substitutions: number of wrong words.
        deletions: number of missing words.
        insertions: number of words too many.
        reference_words: number of words in the normalised references.
        utterances: number of utterances.
        audio_seconds: their length without padding.
        wall_seconds: time to read and transcribe all batches, from asking for the first one to
            the last text. Loading the model and compiling are left out.
        rtfx: audio_seconds / wall_seconds.
        parameters: number of weights; the tied embedding counts once.
        normalizer: name of the normaliser; "+strip-diacritics" is appended if accents were dropped.
        model: name of the model.
        data: name of the data set.
        load_seconds: time to load the model, as the caller measured it.
        compile_seconds: time to trace and compile; 0 if compiled before.
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
class TranscribedUtterance:
    """An utterance: what was said (reference) and what was recognised (hypothesis).

    Both texts are as they were before normalising.
    """

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
) -> tuple[Report, list[TranscribedUtterance]]:
    """Transcribes all batches and scores them.

    Host and device overlap: a batch is dispatched before the texts of the one before are fetched.

    Args:
        transcribe: the result of `corpus_batches.make_transcribe`; keep it between calls.
        params: parameters of the model, on the device.
        batches: read once, in order. The first one sets the batch size. A shorter one (the last)
            is filled up to it, so that nothing compiles twice.
        detokenize: tokens of one row, before its end_of_text, to text.
        end_of_text: the token that `transcribe` ends and fills rows with.
        normalizer_name: see `normalizers.normalizer`.
        strip_diacritics: see `normalizers.normalizer`.
        model: name for the report.
        data: name for the report.
        load_seconds: for the report.

    Returns:
        The report, and the transcribed utterances in the order given.

    Raises:
        InputError: there is no utterance, or no reference has a word.
    """
    normalize = normalizer(normalizer_name, strip_diacritics)
    utterances: list[TranscribedUtterance] = []
    compile_seconds = 0.0
    batch_size = 0
    pending: tuple[EvaluationBatch, jax.Array] | None = None
    start = time.perf_counter()
    for batch in batches:
        batch_size = batch_size or len(batch.prompt)
        inputs, prompt = _filled(batch, batch_size)
        arguments = (params, inputs, prompt, np.arange(batch_size) < len(batch.ids))
        # Compile here, to measure the time. jit caches the program for the call below, and for
        # this line from the second batch on.
        compile_start = time.perf_counter()
        transcribe.lower(*arguments).compile()
        compile_seconds += time.perf_counter() - compile_start
        dispatched = (batch, transcribe(*arguments))
        if pending is not None:
            utterances += _utterances(*pending, detokenize, end_of_text)
        pending = dispatched
    if pending is None:
        raise InputError(f"{data or 'the data'} holds no utterance to evaluate; give at least one")
    utterances += _utterances(*pending, detokenize, end_of_text)
    wall_seconds = time.perf_counter() - start - compile_seconds

    rates = error_rates(
        [row.reference for row in utterances], [row.hypothesis for row in utterances], normalize
    )
    audio_seconds = sum(row.audio_seconds for row in utterances)
    report = Report(
        **dataclasses.asdict(rates),
        utterances=len(utterances),
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
    return report, utterances


def _filled(batch: EvaluationBatch, batch_size: int) -> tuple[Any, Any]:
    """The batch's inputs and prompt, with the last row repeated up to `batch_size` rows."""
    missing = batch_size - len(batch.prompt)
    if missing == 0:
        return batch.inputs, batch.prompt

    def fill(rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])

    return jax.tree.map(fill, (batch.inputs, batch.prompt))


def _utterances(
    batch: EvaluationBatch,
    tokens: jax.Array,
    detokenize: Callable[[Sequence[int]], str],
    end_of_text: int,
) -> list[TranscribedUtterance]:
    """Waits for the tokens (B, T) of a batch, and decodes those of its utterances."""
    if tokens.is_fully_addressable:
        rows = np.asarray(tokens)
    else:
        rows = multihost_utils.process_allgather(tokens, tiled=True)
    texts = []
    for row in rows[: len(batch.ids)].tolist():
        length = row.index(end_of_text) if end_of_text in row else len(row)
        texts.append(detokenize(row[:length]).strip())
    lines = zip(batch.ids, batch.references, texts, batch.durations_seconds, strict=True)
    return [TranscribedUtterance(*line) for line in lines]
