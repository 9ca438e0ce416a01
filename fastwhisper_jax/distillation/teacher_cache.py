"""What frozen models compute of each utterance, kept on disk: computed once.

One folder holds two kinds of arrays. Encoder states, of a frozen encoder in one window, are (S, D)
float16: files are keyed by a hash of their audio and window, folders by a hash of weights, feature
settings, dtype, platform and precision. Teacher states, the output of the teacher's decoder, are
(P + N, D) float32: their keys add the tokens and the decoder's weights. So runs share exactly what
they may share. A run reads the arrays from its first epoch on, so that a resumed run sees the same
rounded values.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fastwhisper_jax.audio.files import AudioSource, audio_sha256
from fastwhisper_jax.audio.windows import Windows, window_positions
from fastwhisper_jax.config import Config
from fastwhisper_jax.data.batching import BatchLayout, layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import HostBatch, LoadInputs, Rows
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.array_store import ArrayStore, digest
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.distillation.hidden_states import compared_stacks
from fastwhisper_jax.distillation.pair import PairShapes
from fastwhisper_jax.training.distributed import wait_for_all

FORMAT = "2: log-mel after transformers' WhisperFeatureExtractor, float16, by window"

UtteranceKey = tuple[AudioSource, float, float | None]
# An utterance, and the window in seconds that it is heard in.
Heard = tuple[Utterance, float]


def key_of(utterance: Utterance) -> UtteranceKey:
    """Identifies a part of an audio file within a run."""
    return (utterance.audio, utterance.offset, utterance.duration)


def audio_names(utterances: Sequence[Utterance]) -> dict[UtteranceKey, str]:
    """The key of each utterance's audio: it follows from the content, whatever the path is."""
    contents = {audio: audio_sha256(audio) for audio in {u.audio for u in utterances}}
    return {key_of(u): digest(contents[u.audio], u.offset, u.duration) for u in utterances}


class CachedParts(NamedTuple):
    """What a run reads from its cache.

    Attributes:
        encoder_states: those of the student's frozen encoder.
        teacher_states: those of the teacher's decoder.
    """

    encoder_states: bool
    teacher_states: bool


def cached_parts(config: Config, models: PairShapes, runs_teacher: bool) -> CachedParts:
    """What a run reads from its cache.

    Timestamps change a row's tokens from epoch to epoch, and hidden states are not kept: then the
    teacher runs at every step. It needs audio, unless teacher and student hear the same window with
    one encoder.

    Args:
        config: the recipe.
        models: sizes and windows of teacher and student.
        runs_teacher: whether any update of the run learns from the teacher.
    """
    if config.data.cache is None:
        return CachedParts(encoder_states=False, teacher_states=False)
    compared = compared_stacks(config)
    teacher_states = runs_teacher and not compared and not config.data.timestamp_probability
    parts = CachedParts(encoder_states=False, teacher_states=teacher_states)
    hears_audio = runs_teacher_in_steps(config, parts, runs_teacher) and not hears_alike(models)
    is_fixed = "encoder" in config.student.frozen and not config.data.augments_audio
    return parts._replace(encoder_states=is_fixed and not hears_audio and "encoder" not in compared)


def runs_teacher_in_steps(config: Config, parts: CachedParts, runs_teacher: bool) -> bool:
    """Whether any update of a run runs the teacher, and does not only read what it has said."""
    return bool(compared_stacks(config)) or (runs_teacher and not parts.teacher_states)


def hears_alike(models: PairShapes) -> bool:
    """Whether one run of one encoder serves teacher and student in every batch."""
    windows = models.student.windows.seconds
    return models.student.shares_encoder and windows == (models.teacher_dims.context_seconds,)


@dataclasses.dataclass(frozen=True)
class EncoderCache:
    """Encoder states of utterances, for each window that they are heard in.

    Attributes:
        store: the folder of this encoder.
        names: the key of each utterance's audio.
        width: D of the encoder.
    """

    store: ArrayStore
    names: dict[UtteranceKey, str]
    width: int

    def name(self, utterance: Utterance, window_seconds: float) -> str:
        """The file name of an utterance's array in a window."""
        return digest(self.names[key_of(utterance)], window_positions(window_seconds))

    def load_inputs(self, rows: Rows, layout: BatchLayout) -> HostBatch:
        """Reads {"encoder_states": (b, S, D) float16}; a row without an utterance is zero."""
        window = layout.window_seconds
        states = np.zeros((len(rows), window_positions(window), self.width), np.float16)
        for index, row in enumerate(rows):
            for utterance in row:
                states[index] = self.store.read(self.name(utterance, window))
        return {"encoder_states": states}

    def fill(
        self,
        heard: Sequence[Heard],
        encode: Callable[[Rows, float], np.ndarray],
        batch_size: int,
        advance: Callable[[int], object],
        local_rows: Sequence[int] | None = None,
    ) -> None:
        """Computes the states of utterances and writes them.

        Args:
            heard: the missing ones, the same on every process.
            encode: maps this process's rows (one utterance or none each) and a window in seconds
                to (b, S, D) on the host. Every process calls it equally often.
            batch_size: rows of a batch over all processes.
            advance: called with how many utterances were done.
            local_rows: which rows of a batch this process computes; None for all.
        """
        local_rows = range(batch_size) if local_rows is None else local_rows
        for window in sorted({window for _, window in heard}):
            utterances = [utterance for utterance, own in heard if own == window]
            for start in range(0, len(utterances), batch_size):
                chunk = utterances[start : start + batch_size]
                mine = [chunk[row] for row in local_rows if row < len(chunk)]
                rows = [[utterance] for utterance in mine] + [[]] * (len(local_rows) - len(mine))
                for utterance, states in zip(mine, encode(rows, window), strict=False):
                    self.store.write(self.name(utterance, window), states.astype(np.float16))
                advance(len(chunk))
        wait_for_all("encoder cache")

    def missing(self, heard: Iterable[Heard]) -> list[Heard]:
        """Those whose states must be computed; equal audio in one window is listed once."""
        once = {self.name(*pair): pair for pair in heard}
        absent = self.store.absent(list(once))
        return [pair for pair, is_absent in zip(once.values(), absent, strict=True) if is_absent]


@dataclasses.dataclass(frozen=True)
class TeacherCache:
    """Teacher states for the labels of a corpus, read together with the student's inputs.

    Attributes:
        student_inputs: reads what the student's encoder is given, or its cached states.
        store: the folder of this teacher.
        names: the file name of each utterance's array.
        width: D of the teacher.
    """

    student_inputs: LoadInputs
    store: ArrayStore
    names: dict[Utterance, str]
    width: int

    def load_inputs(self, rows: Rows, layout: BatchLayout) -> HostBatch:
        """Adds "teacher_states" (b, T, D) float32, zero after each row's tokens."""
        states = np.zeros((len(rows), layout.target_length, self.width), np.float32)
        for index, row in enumerate(rows):
            for utterance in row:
                known = self.store.read(self.names[utterance])
                states[index, : len(known)] = known
        return {**self.student_inputs(rows, layout), "teacher_states": states}

    def fill(
        self,
        corpus: Corpus,
        load_inputs: LoadInputs,
        window_seconds: float,
        decode: Callable[[HostBatch], np.ndarray],
        batch_size: int,
        buckets: Sequence[int],
        end_of_text: int,
        advance: Callable[[int], object],
        local_rows: Sequence[int] | None = None,
    ) -> None:
        """Computes and writes the missing states; skips batches of which nothing is missing.

        Args:
            corpus: the labels that the teacher's decoder is given.
            load_inputs: reads what `decode` is given beside the tokens.
            window_seconds: the teacher's window.
            decode: maps this process's share of a batch to states (b, T, D) on the host.
            batch_size: rows of a batch over all processes.
            buckets: target lengths T.
            end_of_text: the token that pads labels.
            advance: called with how many utterances were done.
            local_rows: which rows of a batch this process computes; None for all.
        """
        local_rows = range(batch_size) if local_rows is None else local_rows
        names = [self.names[utterance] for utterance in corpus.utterances]
        absent = self.store.absent(names)
        windows = Windows((window_seconds,))
        for layout in layouts_in_order(corpus.sizes, batch_size, buckets, windows):
            indices = [row[0] for row in layout.rows if row]
            if any(absent[index] for index in indices):
                batch = collate(
                    layout, corpus, load_inputs, end_of_text=end_of_text, local_rows=local_rows
                )
                for row, states in zip(local_rows, decode(batch), strict=True):
                    for index in (i for i in layout.rows[row] if absent[i]):
                        prompt, label = corpus.tokens[index]
                        self.store.write(names[index], states[: len(prompt) + len(label)])
            advance(len(indices))
        wait_for_all("teacher cache")


def teacher_names(corpus: Corpus, names: dict[UtteranceKey, str]) -> dict[Utterance, str]:
    """The key of each utterance's teacher states: a hash of its audio and its tokens."""
    pairs = zip(corpus.utterances, corpus.tokens, strict=True)
    return {u: digest(names[key_of(u)], tuple(tokens)) for u, tokens in pairs}
