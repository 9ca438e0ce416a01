"""Evaluation: transcribes batches, and reports error rates and speed.

The caller provides the batches, the jitted function that transcribes them, and the tokenizer's
decode. So the command line and the training loop use the same function.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.error_rates import ErrorRates, error_rates, normalized
from fastwhisper_jax.evaluation.loops import LoopCost, is_loop, loop_cost
from fastwhisper_jax.evaluation.normalizers import Normalizer, normalizer
from fastwhisper_jax.models.whisper.forward import Params


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Utterances to transcribe at once.

    Attributes:
        inputs: what `transcribe` takes: an array or tree of arrays, B rows each.
        prompt: (B, P) int32, the prompt of each row; languages may differ within a batch.
        indices: numbers of the utterances in the corpus, at most B; later rows only fill the
            batch up.
        ids: name of each utterance.
        references: what was said in each.
        durations_seconds: length of the speech of each, without padding.
    """

    inputs: Any
    prompt: np.ndarray | jax.Array
    indices: Sequence[int]
    ids: Sequence[str]
    references: Sequence[str]
    durations_seconds: Sequence[float]


class Scoring(NamedTuple):
    """How tokens become texts, and texts are scored.

    Attributes:
        detokenize: tokens of one row, before its end_of_text, to text.
        end_of_text: the token that ends and fills rows.
        normalizer: name of a normaliser, see `normalizers.normalizer`.
        strip_diacritics: see `normalizers.normalizer`.
    """

    detokenize: Callable[[Sequence[int]], str]
    end_of_text: int
    normalizer: str
    strip_diacritics: bool = False


class ReportFacts(NamedTuple):
    """What a report repeats from its caller: see the attributes of `Report`."""

    model: str = ""
    data: str = ""
    load_seconds: float = 0.0


UNNAMED = ReportFacts()


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
        loops: number of hypotheses that repeat themselves or run on, see `loops.is_loop`.
        loop_errors: number of word errors in them.
        wer_without_loops: word error rate of all other utterances, a fraction; None if their
            references have no word.
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
    loops: int
    loop_errors: int
    wer_without_loops: float | None
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

    Both texts are as they were before normalising. `loops` says that the hypothesis repeats itself
    or runs on, see `loops.is_loop`.
    """

    id: str
    reference: str
    hypothesis: str
    audio_seconds: float
    loops: bool = False


def evaluate(
    transcribe: jax.stages.Wrapped,
    params: Params,
    batches: Iterable[EvaluationBatch],
    scoring: Scoring,
    facts: ReportFacts = UNNAMED,
) -> tuple[Report, list[TranscribedUtterance]]:
    """Transcribes all batches and scores them.

    Host and device overlap: a batch is dispatched before the texts of the one before are fetched.

    Args:
        transcribe: the result of `corpus_batches.make_transcribe`; keep it between calls.
        params: parameters of the model, on the device.
        batches: read once; their utterances may come in any order. The first one sets the batch
            size. A shorter one (the last) is filled up to it, so that nothing compiles twice.
        scoring: how tokens become texts, and texts are scored.
        facts: for the report.

    Returns:
        The report, and the transcribed utterances in the order of the corpus.

    Raises:
        InputError: there is no utterance, or no reference has a word.
    """
    normalize = normalizer(scoring.normalizer, scoring.strip_diacritics)
    numbered: list[tuple[int, TranscribedUtterance]] = []
    compiled: set[str] = set()
    compile_seconds = 0.0
    batch_size = 0
    pending: tuple[EvaluationBatch, jax.Array] | None = None
    start = time.perf_counter()
    for batch in batches:
        batch_size = batch_size or len(batch.prompt)
        inputs, prompt = _filled(batch, batch_size)
        arguments = (params, inputs, prompt, np.arange(batch_size) < len(batch.indices))
        shapes = str(jax.tree.map(np.shape, (inputs, prompt)))
        if shapes not in compiled:
            # Compile here, to measure the time; jit caches the program for the call below. What
            # still runs is waited for, or its time would count as compilation.
            jax.block_until_ready(pending and pending[1])
            compile_start = time.perf_counter()
            transcribe.lower(*arguments).compile()
            compile_seconds += time.perf_counter() - compile_start
            compiled.add(shapes)
        dispatched = (batch, transcribe(*arguments))
        if pending is not None:
            numbered += _utterances(*pending, scoring)
        pending = dispatched
    if pending is None:
        name = facts.data or "the data"
        raise InputError(f"{name} holds no utterance to evaluate; give at least one")
    numbered += _utterances(*pending, scoring)
    wall_seconds = time.perf_counter() - start - compile_seconds

    numbered.sort(key=lambda pair: pair[0])
    rates, cost, utterances = _scored([row for _, row in numbered], normalize)
    audio_seconds = sum(row.audio_seconds for row in utterances)
    report = Report(
        **dataclasses.asdict(rates),
        **cost._asdict(),
        **facts._asdict(),
        utterances=len(utterances),
        audio_seconds=audio_seconds,
        wall_seconds=wall_seconds,
        rtfx=audio_seconds / wall_seconds,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        normalizer=scoring.normalizer + ("+strip-diacritics" if scoring.strip_diacritics else ""),
        compile_seconds=compile_seconds,
    )
    return report, utterances


def _scored(
    utterances: Sequence[TranscribedUtterance], normalize: Normalizer
) -> tuple[ErrorRates, LoopCost, list[TranscribedUtterance]]:
    """Counts errors and loops, and marks the utterances that loop."""
    references = normalized((row.reference for row in utterances), normalize)
    hypotheses = normalized((row.hypothesis for row in utterances), normalize)
    rates = error_rates(references, hypotheses, str)
    loops = list(map(is_loop, references, hypotheses))
    marked = [
        dataclasses.replace(row, loops=loop) for row, loop in zip(utterances, loops, strict=True)
    ]
    return rates, loop_cost(references, hypotheses, loops, rates), marked


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
    batch: EvaluationBatch, tokens: jax.Array, scoring: Scoring
) -> list[tuple[int, TranscribedUtterance]]:
    """Waits for the tokens (B, T) of a batch; returns its utterances with their numbers."""
    if tokens.is_fully_addressable:
        rows = np.asarray(tokens)
    else:
        rows = multihost_utils.process_allgather(tokens, tiled=True)
    texts = []
    for row in rows[: len(batch.indices)].tolist():
        length = row.index(scoring.end_of_text) if scoring.end_of_text in row else len(row)
        texts.append(scoring.detokenize(row[:length]).strip())
    lines = zip(batch.ids, batch.references, texts, batch.durations_seconds, strict=True)
    utterances = [TranscribedUtterance(*line) for line in lines]
    return list(zip(batch.indices, utterances, strict=True))
