"""Fills a run's caches: what a frozen, shared encoder and the teacher's decoder compute."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.config import Config
from fastwhisper_jax.data.loader import HostBatch, Rows
from fastwhisper_jax.distillation.array_store import digest, open_store, params_digest
from fastwhisper_jax.distillation.hidden_states import compared_stacks
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.task import RunData
from fastwhisper_jax.distillation.teacher_cache import (
    FORMAT,
    EncoderCache,
    TeacherCache,
    audio_names,
    teacher_names,
)
from fastwhisper_jax.export.hf_load import LoadedModel
from fastwhisper_jax.files import path_of
from fastwhisper_jax.models import whisper
from fastwhisper_jax.progress import progress
from fastwhisper_jax.training.input import local_rows
from fastwhisper_jax.training.sharding import batch_sharding, put_batch


def caches_teacher(config: Config, runs_teacher: bool) -> bool:
    """Whether a run with an encoder cache also reads the teacher's decoder states from disk.

    Timestamps change a row's tokens from epoch to epoch, and hidden states of the decoder are not
    kept. The teacher's decoder then runs at every step.
    """
    keeps_output = "decoder" not in compared_stacks(config)
    return runs_teacher and keeps_output and not config.data.timestamp_probability


def with_caches(
    config: Config,
    teacher: LoadedModel,
    teacher_params: Any,
    data: RunData,
    mesh: Mesh,
    runs_teacher: bool,
) -> RunData:
    """Makes a run read encoder states and teacher states from disk; computes what is missing.

    Args:
        config: the recipe; it names the cache's folder.
        teacher: as loaded, for the digests.
        teacher_params: on the mesh.
        data: the run's data, with audio as its input.
        mesh: where to compute.
        runs_teacher: whether any update of the run learns from the teacher.
    """
    assert config.data.encoder_cache is not None
    root, dims = path_of(config.data.encoder_cache), teacher.dims
    options = model_options(mesh, config.teacher.dtype)
    batch_size = config.training.eval_batch_size
    here = local_rows(mesh, batch_size)
    utterances = [*data.train.utterances, *(data.eval.utterances if data.eval else ())]
    names = audio_names(utterances)
    encoder_key = digest(FORMAT, dims, options.dtype, params_digest(teacher.params["encoder"]))
    shape = (dims.n_audio_ctx, dims.n_state)
    cache = EncoderCache(open_store(root, f"encoder-{encoder_key}"), names, shape)
    shown = jax.process_index() == 0

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def encode(params: Any, audio: jax.Array) -> jax.Array:
        log_mel = log_mel_spectrogram(audio, dims.n_mels)
        return whisper.encode(params, dims, log_mel, options).astype(jnp.float16)

    def encode_rows(rows: Rows) -> np.ndarray:
        audio = {"audio": data.load_inputs(rows, 0)["audio"]}
        return _own_rows(encode(teacher_params, put_batch(audio, mesh)["audio"]))

    if missing := cache.missing(utterances):
        with progress(len(missing), "encoder cache", "utterances", shown=shown) as advance:
            cache.fill(missing, encode_rows, batch_size, advance, here)
    if not caches_teacher(config, runs_teacher):
        return data._replace(load_inputs=cache.load_inputs, load_eval_inputs=cache.load_inputs)

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def decode(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        tokens, encoder_states = batch["input_ids"], batch["encoder_states"]
        return whisper.decode(params, dims, tokens, encoder_states, options).astype(jnp.float32)

    def decode_rows(batch: HostBatch) -> np.ndarray:
        return _own_rows(decode(teacher_params, put_batch(batch, mesh)))

    teacher_key = digest(encoder_key, params_digest(teacher.params["decoder"]))
    store = open_store(root, f"teacher-{teacher_key}")
    states = TeacherCache(cache, store, teacher_names(data.train, names), dims.n_state)
    with progress(
        len(data.train.utterances), "teacher cache", "utterances", shown=shown
    ) as advance:
        states.fill(
            data.train,
            decode_rows,
            batch_size,
            config.data.target_buckets,
            data.end_of_text,
            advance,
            here,
        )
    return data._replace(load_inputs=states.load_inputs, load_eval_inputs=cache.load_inputs)


def _own_rows(array: jax.Array) -> np.ndarray:
    """The rows of a global array that are on this process's devices, in order."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
