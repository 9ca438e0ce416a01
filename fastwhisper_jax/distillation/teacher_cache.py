"""What frozen models compute of each utterance, kept on disk: computed once.

One folder holds two kinds of arrays. Encoder states are (S, D) float16: files are keyed by a hash
of their audio, folders by a hash of weights and feature settings. Teacher states, the output of the
teacher's decoder, are (P + N, D) float32: their keys add the tokens and the decoder's weights. So
runs share exactly what they may share. A run reads the arrays from its first epoch on, so that a
resumed run sees the same rounded values.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fastwhisper_jax.audio.files import AudioSource, audio_sha256
from fastwhisper_jax.data.batching import layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import HostBatch, Rows
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.array_store import ArrayStore, digest
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.training.distributed import wait_for_all

FORMAT = "1: log-mel after transformers' WhisperFeatureExtractor, float16"

UtteranceKey = tuple[AudioSource, float, float | None]


def key_of(utterance: Utterance) -> UtteranceKey:
    """Identifies a part of an audio file within a run."""
    return (utterance.audio, utterance.offset, utterance.duration)


def audio_names(utterances: Sequence[Utterance]) -> dict[UtteranceKey, str]:
    """The key of each utterance's audio: it follows from the content, whatever the path is."""
    contents = {audio: audio_sha256(audio) for audio in {u.audio for u in utterances}}
    return {key_of(u): digest(contents[u.audio], u.offset, u.duration) for u in utterances}


@dataclasses.dataclass(frozen=True)
class EncoderCache:
    """Encoder states of utterances.

    Attributes:
        store: the folder of this encoder.
        names: the file name of each utterance's array.
        shape: (S, D).
    """

    store: ArrayStore
    names: dict[UtteranceKey, str]
    shape: tuple[int, int]

    def load_inputs(self, rows: Rows, target_length: int) -> HostBatch:
        """Reads {"encoder_states": (b, S, D) float16}; a row without an utterance is zero."""
        states = np.zeros((len(rows), *self.shape), np.float16)
        for index, row in enumerate(rows):
            for utterance in row:
                states[index] = self.store.read(self.names[key_of(utterance)])
        return {"encoder_states": states}

    def fill(
        self,
        utterances: Sequence[Utterance],
        encode: Callable[[Rows], np.ndarray],
        batch_size: int,
        advance: Callable[[int], object],
        local_rows: Sequence[int] | None = None,
    ) -> None:
        """Computes the states of utterances and writes them.

        Args:
            utterances: the missing ones, the same on every process.
            encode: maps this process's rows (one utterance or none each) to (b, S, D) on the host.
                Every process calls it equally often.
            batch_size: rows of a batch over all processes.
            advance: called with how many utterances were done.
            local_rows: which rows of a batch this process computes; None for all.
        """
        local_rows = range(batch_size) if local_rows is None else local_rows
        for start in range(0, len(utterances), batch_size):
            chunk = utterances[start : start + batch_size]
            mine = [chunk[row] for row in local_rows if row < len(chunk)]
            rows = [[utterance] for utterance in mine] + [[]] * (len(local_rows) - len(mine))
            for utterance, states in zip(mine, encode(rows), strict=False):
                self.store.write(self.names[key_of(utterance)], states.astype(np.float16))
            advance(len(chunk))
        wait_for_all("encoder cache")

    def missing(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """The utterances whose states must be computed; equal audio is listed once."""
        once = {self.names[key_of(utterance)]: utterance for utterance in utterances}
        absent = self.store.absent(list(once))
        return [u for u, is_absent in zip(once.values(), absent, strict=True) if is_absent]


@dataclasses.dataclass(frozen=True)
class TeacherCache:
    """Teacher states for the labels of a corpus, read together with the encoder states.

    Attributes:
        encoder: the cache of encoder states.
        store: the folder of this teacher.
        names: the file name of each utterance's array.
        width: D of the teacher.
    """

    encoder: EncoderCache
    store: ArrayStore
    names: dict[Utterance, str]
    width: int

    def load_inputs(self, rows: Rows, target_length: int) -> HostBatch:
        """Adds "teacher_states" (b, T, D) float32, zero after each row's tokens."""
        states = np.zeros((len(rows), target_length, self.width), np.float32)
        for index, row in enumerate(rows):
            for utterance in row:
                known = self.store.read(self.names[utterance])
                states[index, : len(known)] = known
        return self.encoder.load_inputs(rows, target_length) | {"teacher_states": states}

    def fill(
        self,
        corpus: Corpus,
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
        for layout in layouts_in_order(corpus.sizes, batch_size, buckets):
            indices = [row[0] for row in layout.rows if row]
            if any(absent[index] for index in indices):
                batch = collate(
                    layout,
                    corpus,
                    self.encoder.load_inputs,
                    end_of_text=end_of_text,
                    local_rows=local_rows,
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
