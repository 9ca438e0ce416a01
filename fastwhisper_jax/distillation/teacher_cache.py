"""What frozen models make of fixed inputs, kept on disk: computed once for each utterance.

Two stores under one root. Encoder outputs, (S, D) float16, are named by a digest of the audio's
bytes, offset and duration; the folder by one of everything else that shapes them (weights, sizes,
compute dtype, features). The teacher's decoder states, (P + N, D) float32, are named by that and
the tokens, their folder by the decoder's weights too. So runs share exactly what they may. A run
reads the stores from its first epoch on: a resumed run sees the same rounded values.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fastwhisper_jax.audio.files import AudioSource, audio_sha256
from fastwhisper_jax.data.batching import layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import Batch, Rows, assemble_batch
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.array_store import ArrayStore, digest
from fastwhisper_jax.training.distributed import wait_for_all

FORMAT = "1: log-mel after transformers' WhisperFeatureExtractor, float16"

UtteranceKey = tuple[AudioSource, float, float | None]


def key_of(utterance: Utterance) -> UtteranceKey:
    """What tells one stretch of audio from another within a run."""
    return (utterance.audio, utterance.offset, utterance.duration)


def audio_names(utterances: Sequence[Utterance]) -> dict[UtteranceKey, str]:
    """A name for each stretch of audio that follows from its content, whatever its path."""
    contents = {audio: audio_sha256(audio) for audio in {u.audio for u in utterances}}
    return {key_of(u): digest(contents[u.audio], u.offset, u.duration) for u in utterances}


@dataclasses.dataclass(frozen=True)
class EncoderCache:
    """Encoder outputs of some utterances.

    Attributes:
        store: of this encoder.
        names: of each utterance's array.
        shape: (S, D).
    """

    store: ArrayStore
    names: dict[UtteranceKey, str]
    shape: tuple[int, int]

    def load_inputs(self, rows: Rows, target_length: int) -> Batch:
        """{"encoder_states": (b, S, D) float16} of rows of one utterance or none (zeros)."""
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
        """Computes and keeps what is missing.

        Args:
            utterances: the missing ones, the same on every process.
            encode: this process's rows (one utterance or none each) to (b, S, D) on the host;
                every process calls it equally often.
            batch_size: rows of all processes together.
            advance: told how many utterances were done.
            local_rows: numbers of the rows of a batch that this process computes; None for all.
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
        """The utterances that are to be computed, each stretch of audio once."""
        once = {self.names[key_of(utterance)]: utterance for utterance in utterances}
        absent = self.store.absent(list(once))
        return [u for u, is_absent in zip(once.values(), absent, strict=True) if is_absent]


@dataclasses.dataclass(frozen=True)
class TeacherCache:
    """The teacher's decoder states for the labels of a corpus, beside its encoder's outputs.

    Attributes:
        encoder: gives the encoder's outputs.
        store: of this teacher.
        names: of each utterance's array.
        width: D of the teacher.
    """

    encoder: EncoderCache
    store: ArrayStore
    names: dict[Utterance, str]
    width: int

    def load_inputs(self, rows: Rows, target_length: int) -> Batch:
        """Adds "teacher_states" (b, T, D) float32, zero behind each row's tokens."""
        states = np.zeros((len(rows), target_length, self.width), np.float32)
        for index, row in enumerate(rows):
            for utterance in row:
                known = self.store.read(self.names[utterance])
                states[index, : len(known)] = known
        return self.encoder.load_inputs(rows, target_length) | {"teacher_states": states}

    def fill(
        self,
        corpus: Corpus,
        decode: Callable[[Batch], np.ndarray],
        batch_size: int,
        buckets: Sequence[int],
        end_of_text: int,
        advance: Callable[[int], object],
        local_rows: Sequence[int] | None = None,
    ) -> None:
        """Computes and keeps what is missing; batches with nothing missing are passed over.

        Args:
            corpus: whose labels the teacher is to read.
            decode: this process's share of a batch to states (b, T, D) on the host.
            batch_size: rows of all processes together.
            buckets: target lengths T.
            end_of_text: pads the labels.
            advance: told how many utterances were done.
            local_rows: numbers of the rows of a batch that this process computes; None for all.
        """
        local_rows = range(batch_size) if local_rows is None else local_rows
        names = [self.names[utterance] for utterance in corpus.utterances]
        absent = self.store.absent(names)
        for plan in layouts_in_order(corpus.sizes, batch_size, buckets):
            indices = [row[0] for row in plan.rows if row]
            if any(absent[index] for index in indices):
                batch = assemble_batch(
                    plan,
                    corpus.utterances,
                    corpus.tokens,
                    self.encoder.load_inputs,
                    end_of_text=end_of_text,
                    local_rows=local_rows,
                )
                for row, states in zip(local_rows, decode(batch), strict=True):
                    for index in (i for i in plan.rows[row] if absent[i]):
                        prompt, label = corpus.tokens[index]
                        self.store.write(names[index], states[: len(prompt) + len(label)])
            advance(len(indices))
        wait_for_all("teacher cache")


def teacher_names(corpus: Corpus, names: dict[UtteranceKey, str]) -> dict[Utterance, str]:
    """Names of the decoder states: of the audio and of the tokens that the decoder reads."""
    pairs = zip(corpus.utterances, corpus.tokens, strict=True)
    return {u: digest(names[key_of(u)], tuple(tokens)) for u, tokens in pairs}
