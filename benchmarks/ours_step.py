"""Our contender of step.py: this package's own train step.

    python benchmarks/ours_step.py MODEL frozen|full|cached BATCH TOKENS STEPS

`cached` reads encoder states and teacher states from disk through the run's own reading path, as
training does once its cache is full. The reading is timed with the step.
"""

import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from side_by_side import print_times

from fastwhisper_jax.audio.windows import window_frames
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
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.array_store import ArrayStore
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.distillation.pair import load_pair, place_params
from fastwhisper_jax.distillation.run import make_step_config
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.shapes import model_dimensions
from fastwhisper_jax.distillation.task import make_task
from fastwhisper_jax.distillation.teacher_cache import EncoderCache, TeacherCache, key_of
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.input import device_batches
from fastwhisper_jax.training.loop import PhasedStep
from fastwhisper_jax.training.sharding import make_mesh, put_batch
from fastwhisper_jax.training.state import abstract_state, first_state
from fastwhisper_jax.training.task import Batch, Params

PROMPT_TOKENS = 4
END_OF_TEXT = 50_257


def recipe(model: str, mode: str, batch_size: int) -> Config:
    """Distil-Whisper's objective, two decoder layers, token embedding trained as in the peers."""
    return Config(
        teacher=TeacherConfig(path=model),
        student=StudentConfig(
            decoder_layers=2, frozen=("encoder",) if mode in ("frozen", "cached") else ()
        ),
        objective=ObjectiveConfig(
            teacher_weight=ScheduleConfig(init_value=1.0), ce_weight=0.8, temperature=2.0
        ),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        training=TrainingConfig(global_batch_size=batch_size),
    )


def random_batch(
    dims: ModelDimensions, batch_size: int, length: int, window_seconds: float | None
) -> dict[str, np.ndarray]:
    """Noise in the shapes of a batch. Every position is a target.

    With a window, what the teacher says of the batch comes from a cache.
    """
    generator = np.random.default_rng(0)
    shape = (batch_size, length)
    frames = dims.n_frames if window_seconds is None else window_frames(window_seconds)
    log_mel = (batch_size, frames, dims.n_mels)
    states = generator.standard_normal((*shape, dims.n_state), dtype=np.float32)
    return ({} if window_seconds is None else {"teacher_states": states}) | {
        "log_mel": generator.standard_normal(log_mel, dtype=np.float32),
        "input_ids": generator.integers(0, dims.n_vocab, shape, dtype=np.int32),
        "labels": generator.integers(0, dims.n_vocab, shape, dtype=np.int32),
        "label_mask": np.ones(shape, np.float32),
    }


def cached_batches(
    dims: ModelDimensions, batch_size: int, length: int, steps: int, folder: Path, mesh: Mesh
) -> Iterator[Batch]:
    """Reads two batches of noise in turn from a full cache, as a run reads its own."""
    generator = np.random.default_rng(0)
    utterances = tuple(
        Utterance(id=f"{i}", audio=f"{i}.wav", text="", language="en", offset=0.0, duration=30.0)
        for i in range(2 * batch_size)
    )
    label_tokens = length - PROMPT_TOKENS
    tokens = tuple(
        UtteranceTokens(tuple(range(PROMPT_TOKENS)), tuple(map(int, row)))
        for row in generator.integers(0, dims.n_vocab, (len(utterances), label_tokens))
    )
    sizes = (UtteranceSize(30.0, PROMPT_TOKENS, label_tokens),) * len(utterances)
    encoder, teacher = ArrayStore(folder / "encoder"), ArrayStore(folder / "teacher")
    cache = EncoderCache(encoder, {key_of(u): u.id for u in utterances}, dims.n_state)
    states = TeacherCache(cache.load_inputs, teacher, {u: u.id for u in utterances}, dims.n_state)
    for store in (encoder, teacher):
        store.folder.mkdir()
    for utterance in utterances:
        array = generator.standard_normal((dims.n_audio_ctx, dims.n_state), dtype=np.float32)
        encoder.write(cache.name(utterance, dims.context_seconds), array.astype(np.float16))
        array = generator.standard_normal((length, dims.n_state), dtype=np.float32)
        teacher.write(states.names[utterance], array)
    make_batch = functools.partial(
        collate,
        corpus=Corpus(utterances, tokens, sizes, ""),
        load_inputs=states.load_inputs,
        end_of_text=END_OF_TEXT,
    )
    rows = [(i,) for i in range(2 * batch_size)]
    halves = tuple(rows[:batch_size]), tuple(rows[batch_size:])
    return device_batches(
        [BatchLayout(length, halves[step % 2], dims.context_seconds) for step in range(steps)],
        lambda layout, local_rows: make_batch(layout, local_rows=local_rows),
        lambda batch, step: batch,
        mesh,
    )


def make_consumer(config: Config, mesh: Mesh) -> Callable[[Batch], None]:
    """The run's own train step with its state; it waits until the update is done."""
    pair = load_pair(config)
    schedule = make_run_schedule(config.objective, config.optimizer, total_steps=1000)

    def load_student() -> Params:
        return load_pair(config).student_params

    task = make_task(config, pair.shapes, schedule, mesh, load_student)
    shapes = abstract_state(task, schedule.optimizer, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    state = first_state(task, schedule.optimizer, shardings)
    teacher_params = place_params(pair.teacher.params, config.teacher.dtype, mesh)
    train_step = PhasedStep(task, make_step_config(config, schedule), shardings)
    steps = itertools.count()

    def consume(batch: Batch) -> None:
        nonlocal state
        state, metrics = train_step(next(steps), state, teacher_params, batch)
        jax.block_until_ready((state, metrics))

    return consume


def main(model: str, mode: str, batch_size: int, length: int, steps: int) -> None:
    config, mesh = recipe(model, mode, batch_size), make_mesh(-1, 1)
    update, dims = make_consumer(config, mesh), model_dimensions(model)
    with tempfile.TemporaryDirectory() as folder:
        if mode == "cached":
            batches = cached_batches(dims, batch_size, length, steps + 1, Path(folder), mesh)
        else:
            window = float(mode.removeprefix("window-")) if mode.startswith("window-") else None
            batch = random_batch(dims, batch_size, length, window)
            batches = itertools.repeat(put_batch(batch, mesh))
        seconds = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            update(next(batches))
            seconds.append(time.perf_counter() - start)
    print_times(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
