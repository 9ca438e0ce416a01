"""One contender of step.py: this package's own train step, timed in a process of its own.

    run by the benchmark as: ours_step.py MODEL frozen|full|cached BATCH TOKENS STEPS

`cached` reads encoder outputs and teacher states from disk through the run's own reading path, as
training does once its cache is full; the reading is timed with the step.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from contenders.report import print_times
from jax.sharding import Mesh

from fastwhisper_jax.config import (
    Config,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)
from fastwhisper_jax.data.batching import BatchLayout, UtteranceSize
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.array_store import ArrayStore
from fastwhisper_jax.distillation.assembly import abstract_state, first_state, make_step_config
from fastwhisper_jax.distillation.pair import load_pair, place_models
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.shapes import model_dimensions
from fastwhisper_jax.distillation.teacher_cache import EncoderCache, TeacherCache, key_of
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.tokens import UtteranceTokens
from fastwhisper_jax.training.input import device_batches
from fastwhisper_jax.training.loop import PhasedStep
from fastwhisper_jax.training.sharding import make_mesh, put_batch
from fastwhisper_jax.training.step import Batch

PROMPT_TOKENS = 4


def recipe(model: str, mode: str, batch_size: int) -> Config:
    """Distil-Whisper's objective, two decoder layers, token embedding trained as in the peers."""
    return Config(
        teacher=TeacherConfig(path=model),
        student=StudentConfig(decoder_layers=2, frozen=() if mode == "full" else ("encoder",)),
        objective=ObjectiveConfig(
            teacher_weight=ScheduleConfig(init_value=1.0), ce_weight=0.8, temperature=2.0
        ),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        training=TrainingConfig(global_batch_size=batch_size),
    )


def random_batch(dims: ModelDimensions, batch_size: int, length: int) -> dict[str, np.ndarray]:
    """Noise of the right shapes; every position is a target."""
    rng = np.random.default_rng(0)
    shape = (batch_size, length)
    return {
        "log_mel": rng.standard_normal((batch_size, dims.n_frames, dims.n_mels), dtype=np.float32),
        "input_ids": rng.integers(0, dims.n_vocab, shape, dtype=np.int32),
        "labels": rng.integers(0, dims.n_vocab, shape, dtype=np.int32),
        "label_mask": np.ones(shape, np.float32),
    }


def cached_batches(
    dims: ModelDimensions, batch_size: int, length: int, steps: int, folder: Path, mesh: Mesh
) -> Iterator[Batch]:
    """The run's reading path over a full cache: noise in its shapes, one array an utterance."""
    rng = np.random.default_rng(0)
    utterances = tuple(
        Utterance(id=f"{i}", audio=f"{i}.wav", text="", language="en", offset=0.0, duration=30.0)
        for i in range(2 * batch_size)
    )
    label_tokens = length - PROMPT_TOKENS
    tokens = tuple(
        UtteranceTokens(tuple(range(PROMPT_TOKENS)), tuple(map(int, row)))
        for row in rng.integers(0, dims.n_vocab, (len(utterances), label_tokens))
    )
    sizes = (UtteranceSize(30.0, PROMPT_TOKENS, label_tokens),) * len(utterances)
    encoder, teacher = ArrayStore(folder / "encoder"), ArrayStore(folder / "teacher")
    for store, shape, dtype in (
        (encoder, (dims.n_audio_ctx, dims.n_state), np.float16),
        (teacher, (length, dims.n_state), np.float32),
    ):
        store.folder.mkdir()
        for utterance in utterances:
            store.write(utterance.id, rng.standard_normal(shape, dtype=np.float32).astype(dtype))
    cache = EncoderCache(
        encoder, {key_of(u): u.id for u in utterances}, (dims.n_audio_ctx, dims.n_state)
    )
    states = TeacherCache(cache, teacher, {u: u.id for u in utterances}, dims.n_state)
    halves = (tuple((i,) for i in range(batch_size)),)
    halves += (tuple((i,) for i in range(batch_size, 2 * batch_size)),)
    return device_batches(
        [BatchLayout(length, halves[step % 2]) for step in range(steps)],
        Corpus(utterances, tokens, sizes, ""),
        states.load_inputs,
        lambda batch, step: batch,
        mesh,
        end_of_text=50_257,
    )


def make_consumer(config: Config, mesh: Mesh) -> Callable[[Batch], None]:
    """The run's own train step, closed over its state; waits for the update to be done."""
    plan = make_run_schedule(config.objective, config.optimizer, total_steps=1000)
    pair = load_pair(config)
    models = place_models(pair, config.teacher.dtype, mesh)
    setup = make_step_config(config, models, plan, mesh)
    shapes = abstract_state(config, models.student_params, models.shares_encoder, plan, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    state = first_state(config, pair.student_params, models.shares_encoder, plan, shardings)
    train_step = PhasedStep(setup, plan, shardings, mesh)
    steps = itertools.count()

    def consume(batch: Batch) -> None:
        nonlocal state
        state, metrics = train_step(next(steps), state, models.teacher_params, batch)
        jax.block_until_ready((state, metrics))

    return consume


def main(model: str, mode: str, batch_size: int, length: int, steps: int) -> None:
    config = recipe(model, mode, batch_size)
    mesh = make_mesh(-1, 1)
    update, dims = make_consumer(config, mesh), model_dimensions(model)
    with tempfile.TemporaryDirectory() as folder:
        if mode == "cached":
            batches = cached_batches(dims, batch_size, length, steps + 1, Path(folder), mesh)
        else:
            batch = put_batch(random_batch(dims, batch_size, length), mesh)
            batches = iter([batch] * (steps + 1))
        seconds = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            update(next(batches))
            seconds.append(time.perf_counter() - start)
    print_times(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
