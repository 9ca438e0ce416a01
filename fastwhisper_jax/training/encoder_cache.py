"""A frozen encoder's outputs on disk, in float16: it is computed once for each utterance.

`ROOT/<encoder>/<utterance>.npy` holds the (S, D) output for one utterance. `<encoder>` is a digest
of everything that shapes the output (weights, sizes, compute dtype, features), `<utterance>` one of
the audio's bytes, offset and duration: runs share a cache exactly where they may. All of a run
reads the cache, its first epoch too, so that a resumed run sees the same float16 values.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
from jax.experimental import multihost_utils

from fastwhisper_jax.data.audio import audio_bytes
from fastwhisper_jax.data.loader import Batch, Rows
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.dimensions import ModelDimensions, ModelOptions
from fastwhisper_jax.models.whisper import Params

FORMAT = "1: log-mel after transformers' WhisperFeatureExtractor, float16"


@dataclasses.dataclass(frozen=True)
class EncoderCache:
    """Where the outputs of one encoder lie.

    Attributes:
        folder: of this encoder; all processes see it.
        positions: S.
        width: D.
        names: file name of each utterance, by its id in `key_of`.
    """

    folder: Path
    positions: int
    width: int
    names: dict[tuple[object, float, float | None], str]

    def path(self, utterance: Utterance) -> Path:
        """The file of an utterance."""
        return self.folder / self.names[key_of(utterance)]

    def read(self, rows: Rows) -> Batch:
        """{"encoder_states": (b, S, D) float16} of rows of one utterance or none (zeros)."""
        states = np.zeros((len(rows), self.positions, self.width), np.float16)
        for index, row in enumerate(rows):
            for utterance in row:
                states[index] = np.load(self.path(utterance))
        return {"encoder_states": states}


def key_of(utterance: Utterance) -> tuple[object, float, float | None]:
    """What tells one stretch of audio from another."""
    return (utterance.audio, utterance.offset, utterance.duration)


def open_cache(
    root: Path,
    utterances: Sequence[Utterance],
    encoder_params: Params,
    dims: ModelDimensions,
    options: ModelOptions,
) -> EncoderCache:
    """Finds the cache of an encoder for these utterances; nothing is computed yet.

    Args:
        root: folder of all caches, made if absent.
        utterances: that will be read.
        encoder_params: the frozen encoder's parameters.
        dims: its sizes.
        options: how it is computed.

    Raises:
        InputError: `root` cannot be written.
    """
    digest = hashlib.sha256(f"{FORMAT} {dims} {options.dtype}".encode())
    for name, leaf in sorted(flax.traverse_util.flatten_dict(encoder_params, sep="/").items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    folder = root / digest.hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".writable-{os.getpid()}").touch()
        (folder / f".writable-{os.getpid()}").unlink()
    except OSError as error:
        raise InputError(
            f"data.encoder_cache={str(root)!r} cannot be written ({error.strerror}); name a folder "
            "that can be, or set data.encoder_cache=none"
        ) from error
    contents = {u.audio: hashlib.sha256(audio_bytes(u.audio)).hexdigest() for u in utterances}
    names = {}
    for utterance in utterances:
        part = f"{contents[utterance.audio]} {utterance.offset} {utterance.duration}"
        names[key_of(utterance)] = hashlib.sha256(part.encode()).hexdigest()[:32] + ".npy"
    return EncoderCache(folder, dims.n_audio_ctx, dims.n_state, names)


def missing(cache: EncoderCache, utterances: Sequence[Utterance]) -> list[Utterance]:
    """The utterances that the cache does not hold, each stretch of audio once, alike everywhere."""
    once = {cache.path(utterance).name: utterance for utterance in utterances}
    present = {entry.name for entry in os.scandir(cache.folder)}
    absent = np.array([name not in present for name in once])
    if jax.process_count() > 1:
        absent = multihost_utils.broadcast_one_to_all(absent)
    return [u for u, is_absent in zip(once.values(), absent, strict=True) if is_absent]


def write(cache: EncoderCache, utterance: Utterance, states: np.ndarray) -> None:
    """Keeps the (S, D) output for an utterance; the file appears whole or not at all."""
    path = cache.path(utterance)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, states.astype(np.float16))
    os.replace(partial, path)


def fill(
    cache: EncoderCache,
    utterances: Sequence[Utterance],
    encode_rows: Callable[[Rows], np.ndarray],
    batch_size: int,
    advance: Callable[[int], None],
) -> None:
    """Computes and keeps the outputs that are missing.

    Args:
        cache: to fill.
        utterances: the missing ones, the same on every process.
        encode_rows: this process's rows of one utterance (or none) to (b, S, D) on the host; every
            process calls it equally often.
        batch_size: rows of all processes together.
        advance: told how many utterances were done.
    """
    share = batch_size // jax.process_count()
    for start in range(0, len(utterances), batch_size):
        chunk = utterances[start : start + batch_size]
        first = jax.process_index() * share
        mine = chunk[first : first + share]
        rows = [[utterance] for utterance in mine] + [[] for _ in range(share - len(mine))]
        states = encode_rows(rows)
        for utterance, row in zip(mine, states, strict=False):
            write(cache, utterance, row)
        advance(len(chunk))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("encoder cache filled")
