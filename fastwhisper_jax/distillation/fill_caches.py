"""Fills a run's caches: what the teacher's decoder and a frozen encoder compute."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import Config
from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.loader import BatchLayouts, HostBatch, LoadInputs, Rows, audio_inputs
from fastwhisper_jax.distillation.array_store import digest, open_store, params_digest
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import LoadedPair, place_params
from fastwhisper_jax.distillation.task import RunData
from fastwhisper_jax.distillation.teacher_cache import (
    FORMAT,
    EncoderCache,
    Heard,
    TeacherCache,
    audio_names,
    cached_parts,
    hears_alike,
    teacher_names,
)
from fastwhisper_jax.files import path_of
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.progress import progress
from fastwhisper_jax.training.input import local_rows
from fastwhisper_jax.training.sharding import batch_sharding, put_batch
from fastwhisper_jax.training.task import Batch, Params


class _Encoder(NamedTuple):
    """A frozen encoder on the mesh, and the key of its weights and of how it is computed."""

    params: Params
    dims: ModelDimensions
    options: ModelOptions
    key: str

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        """The states of a batch of audio (B, A), or those that it holds already."""
        if "encoder_states" in batch:
            return batch["encoder_states"]
        log_mel = log_mel_spectrogram(batch["audio"], self.dims.n_mels)
        return whisper.encode(params, self.dims, log_mel, self.options)


def with_caches(
    config: Config,
    pair: LoadedPair,
    teacher_params: Params,
    data: RunData,
    layouts: BatchLayouts,
    mesh: Mesh,
    runs_teacher: bool,
) -> RunData:
    """Makes a run read from disk what never changes; computes what is missing.

    Args:
        config: the recipe; it names the cache's folder.
        pair: teacher and student as loaded.
        teacher_params: on the mesh.
        data: the run's data, with audio as its input.
        layouts: of the run's batches: they say which windows an utterance is heard in.
        mesh: where to compute.
        runs_teacher: whether any update of the run learns from the teacher.
    """
    teacher, student = pair.teacher, pair.student
    parts = cached_parts(config, pair.shapes, runs_teacher)
    corpora = (data.train, *data.eval.values())
    utterances = [utterance for corpus in corpora for utterance in corpus.utterances]
    names = audio_names(utterances) if any(parts) else {}
    own = _encoder(teacher_params, teacher.dims, config.teacher.dtype, teacher.params, mesh)
    if parts.encoder_states:
        encoder = own
        if not student.shares_encoder:
            params = {"encoder": pair.student_params["encoder"]}
            placed = place_params(params, config.student.dtype, mesh)
            encoder = _encoder(placed, student.dims, config.student.dtype, params, mesh)
        heard = _heard(data, layouts, student.windows)
        cache = _fill_encoder_cache(config, encoder, names, heard, mesh)
        data = data._replace(load_inputs=cache.load_inputs, load_eval_inputs=cache.load_inputs)
    if parts.teacher_states:
        alike = parts.encoder_states and hears_alike(pair.shapes)
        inputs = data.load_inputs if alike else audio_inputs
        states = _fill_teacher_cache(config, pair, own, data, inputs, names, mesh)
        data = data._replace(load_inputs=states.load_inputs)
    return data


def _encoder(
    params: Params, dims: ModelDimensions, dtype: str, host_params: Params, mesh: Mesh
) -> _Encoder:
    options = model_options(mesh, dtype)
    platform = mesh.devices.flat[0].platform
    precision = jax.config.values["jax_default_matmul_precision"]
    weights = params_digest(host_params["encoder"])
    key = digest(FORMAT, dims, options.dtype, platform, precision, weights)
    return _Encoder(params, dims, options, key)


def _heard(data: RunData, layouts: BatchLayouts, windows: Windows) -> Iterator[Heard]:
    """Every utterance with each window that the run hears it in."""
    for layout in map(layouts.__getitem__, range(len(layouts))):
        for row in layout.rows:
            for index in row:
                yield data.train.utterances[index], layout.window_seconds
    for corpus in data.eval.values():
        for utterance, size in zip(corpus.utterances, corpus.sizes, strict=True):
            yield utterance, windows.shortest_for(size.seconds)


def _fill_encoder_cache(
    config: Config,
    encoder: _Encoder,
    names: dict[Any, str],
    heard: Iterator[Heard],
    mesh: Mesh,
) -> EncoderCache:
    assert config.data.cache is not None
    store = open_store(path_of(config.data.cache), f"encoder-{encoder.key}")
    cache = EncoderCache(store, names, encoder.dims.n_state)

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def encode(params: Params, batch: Batch) -> jax.Array:
        return encoder(params, batch).astype(jnp.float16)

    def encode_rows(rows: Rows, window_seconds: float) -> np.ndarray:
        layout = BatchLayout(target_length=0, rows=(), window_seconds=window_seconds)
        audio = {"audio": audio_inputs(rows, layout)["audio"]}
        return _own_rows(encode(encoder.params, put_batch(audio, mesh)))

    batch_size = config.training.eval_batch_size
    if missing := cache.missing(heard):
        with _progress(len(missing), "encoder cache") as advance:
            cache.fill(missing, encode_rows, batch_size, advance, local_rows(mesh, batch_size))
    return cache


def _fill_teacher_cache(
    config: Config,
    pair: LoadedPair,
    encoder: _Encoder,
    data: RunData,
    load_inputs: LoadInputs,
    names: dict[Any, str],
    mesh: Mesh,
) -> TeacherCache:
    """Args: `encoder` is the teacher's, `load_inputs` reads what it hears or has computed."""
    assert config.data.cache is not None
    teacher, batch_size = pair.teacher, config.training.eval_batch_size

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def decode(params: Params, batch: Batch) -> jax.Array:
        states = whisper.decode(
            params, teacher.dims, batch["input_ids"], encoder(params, batch), encoder.options
        )
        return states.astype(jnp.float32)

    def decode_rows(batch: HostBatch) -> np.ndarray:
        used = {name: x for name, x in batch.items() if name != "frames"}
        return _own_rows(decode(encoder.params, put_batch(used, mesh)))

    # States that follow from rounded encoder states are others than those of the audio.
    hears_audio = load_inputs is audio_inputs
    key = digest(encoder.key, hears_audio, params_digest(teacher.params["decoder"]))
    store = open_store(path_of(config.data.cache), f"teacher-{key}")
    states = TeacherCache(
        data.load_inputs, store, teacher_names(data.train, names), teacher.dims.n_state
    )
    with _progress(len(data.train.utterances), "teacher cache") as advance:
        states.fill(
            data.train,
            load_inputs,
            teacher.dims.context_seconds,
            decode_rows,
            batch_size,
            config.data.target_buckets,
            data.end_of_text,
            advance,
            local_rows(mesh, batch_size),
        )
    return states


def _progress(total: int, name: str) -> Any:
    return progress(total, name, "utterances", shown=jax.process_index() == 0)


def _own_rows(array: jax.Array) -> np.ndarray:
    """The rows of a global array that are on this process's devices, in order."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
