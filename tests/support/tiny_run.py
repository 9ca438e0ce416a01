"""A whole training, tiny, on recordings of noise. As a script it is a run for a test to kill:

python tiny_run.py RUN_DIR AUDIO_DIR CACHE_DIR|- one|several
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
import soundfile

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.config import (
    Config,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudentConfig,
    TrainingConfig,
)
from fastwhisper_jax.data.batching import UtteranceSize
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.fill_caches import with_caches
from fastwhisper_jax.distillation.pair import LoadedPair, PairShapes, place_params, student_spec
from fastwhisper_jax.distillation.run import fingerprint, make_batch_schedule, make_step_config
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.task import RunData, make_task
from fastwhisper_jax.export.hf_load import LoadedModel
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.student import student_params
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training import loop
from fastwhisper_jax.training.sharding import make_mesh

END_OF_TEXT = 60
TEACHER = ModelDimensions(
    n_mels=8,
    n_audio_ctx=50,
    n_audio_head=2,
    n_audio_layer=2,
    n_audio_mlp=32,
    n_vocab=61,
    n_text_ctx=16,
    n_text_head=2,
    n_text_layer=3,
    n_text_mlp=32,
    n_state=16,
)
STUDENT = ModelDimensions(**vars(TEACHER) | {"n_text_layer": 2})
LENGTH = 12
STEPS = 12
TEACHER_END, SELF_BEGIN = 6, 4
SEVERAL_WINDOWS = (0.8, 1.0)


def random_params(dims, seed=0):
    """Random float32 weights, made without compiling anything."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        scale = 1.0 / np.sqrt(leaf.shape[-2]) if path[-1].key == "kernel" else 0.2
        noise = scale * generator.normal(size=leaf.shape) + (path[-1].key == "scale")
        return noise.astype(np.float32)

    shapes = jax.eval_shape(lambda: whisper.init_params(dims, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def write_audio(folder):
    """Eleven recordings of 0.2 to 0.9 seconds."""
    generator = np.random.default_rng(1)
    for index in range(11):
        noise = 0.1 * generator.normal(size=generator.integers(3_200, 14_400))
        soundfile.write(folder / f"{index:02d}.wav", noise, 16_000)


def make_corpus(folder):
    """The recordings with random labels, all of one bucket."""
    generator = np.random.default_rng(2)
    paths = sorted(Path(folder).glob("*.wav"))
    utterances = tuple(
        Utterance(path.stem, str(path), duration=soundfile.info(path).duration) for path in paths
    )
    labels = [generator.integers(3, END_OF_TEXT, generator.integers(1, 10)) for _ in paths]
    tokens = tuple(UtteranceTokens((1, 2), tuple(map(int, label))) for label in labels)
    sizes = tuple(
        UtteranceSize(utterance.duration, 2, len(row.label))
        for utterance, row in zip(utterances, tokens, strict=True)
    )
    return Corpus(utterances, tokens, sizes, "noise")


def make_config(cache=None, objective=None, windows=None, **training):
    """ASKD: the teacher goes after 6 updates; with a cache it stays, and SpecAugment is off.

    With several windows SpecAugment is on: of a cache, the teacher's states alone are used.
    """
    end_value = 0.0 if cache is None else 0.3
    askd = ObjectiveConfig(
        teacher_weight=ScheduleConfig("linear", 1.0, end_value, steps=TEACHER_END),
        self_weight=ScheduleConfig("linear", end_value=0.5, begin=SELF_BEGIN - 1, steps=3),
        ema_decay=0.9,
    )
    settings = {"global_batch_size": 4, "eval_batch_size": 4, "log_every": 1, "save_every": 1}
    return Config(
        student=StudentConfig(
            frozen=("encoder", "decoder/embed_tokens"),
            windows_seconds=windows,
            margin_seconds=0.1,
            dropout=0.1,
        ),
        data=DataConfig(
            train=("noise",),
            target_buckets=(LENGTH,),
            cache=cache,
            longer_window_probability=0.3,
            time_masks=int(cache is None or windows is not None),
            time_mask_frames=20,
        ),
        objective=askd if objective is None else objective,
        optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, warmup=2),
        training=TrainingConfig(**settings | {"epochs": None, "steps": STEPS} | training),
    )


def teacher_model():
    """The teacher as if it had been read from a folder."""
    windows = Windows((TEACHER.context_seconds,))
    return LoadedModel(TEACHER, random_params(TEACHER), {}, {}, windows, Path())


def loaded_pair(config, teacher=None):
    """Teacher and student as if the teacher had been read from a folder."""
    teacher = teacher_model() if teacher is None else teacher
    student = student_spec(config, TEACHER, TEACHER)
    layers = student.encoder_layers, student.decoder_layers
    params = student_params(teacher.params, student.dims, *layers)
    return LoadedPair(teacher, student, params, Path())


def make_mesh_of_one():
    return make_mesh(1, 1, devices=jax.devices()[:1])


def make_data(config, corpus, mesh, evaluates=False):
    """What the run reads, from its caches if the config has one."""
    corpora = {"": corpus} if evaluates else {}
    data = RunData(corpus, corpora, audio_inputs, audio_inputs, END_OF_TEXT)
    if config.data.cache is None:
        return data
    pair = loaded_pair(config)
    placed = place_params(pair.teacher.params, "float32", mesh)
    layouts = make_batch_schedule(config, corpus, pair.student.windows)
    schedule = make_run_schedule(config.objective, config.optimizer, STEPS)
    return with_caches(config, pair, placed, data, layouts, mesh, schedule.teacher_end > 0)


def pair_shapes(config=None):
    """Teacher and student by their sizes; the student shares the teacher's encoder."""
    student = student_spec(config or make_config(), TEACHER, TEACHER)
    shapes = jax.eval_shape(lambda: whisper.init_params(student.dims, jax.random.key(0)))
    return PairShapes(TEACHER, student, shapes)


def first_student(teacher=None):
    """The student before its first update, on the host."""
    return student_params(teacher or random_params(TEACHER), STUDENT, (0, 1), (0, 2))


def make_run(config, corpus, mesh, data=None, score=None):
    """What the loop trains with; evaluates where there is a score."""
    data = make_data(config, corpus, mesh, score is not None) if data is None else data
    pair = pair_shapes(config)
    layouts = make_batch_schedule(config, data.train, pair.student.windows)
    schedule = make_run_schedule(config.objective, config.optimizer, len(layouts))
    return loop.Run(
        task=make_task(config, pair, schedule, mesh, first_student, data, score),
        teacher_params=place_params(random_params(TEACHER), "float32", mesh),
        layouts=layouts,
        step_config=make_step_config(config, schedule),
        settings=config.training,
        metadata={"train_data": fingerprint(data.train)},
        mesh=mesh,
        threads=config.data.threads,
    )


def run(config, run_dir, corpus, data=None, score=None):
    """Trains to the end."""
    return loop.train(make_run(config, corpus, make_mesh_of_one(), data, score), Path(run_dir))


class SlowLog(loop.MetricsLog):
    """Leaves time to kill the run between two steps."""

    def write(self, step, values):
        super().write(step, values)
        time.sleep(0.2)


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    loop.MetricsLog = SlowLog
    run_folder, audio_folder, cache_folder, windows = sys.argv[1:]
    config = make_config(
        None if cache_folder == "-" else cache_folder,
        windows=SEVERAL_WINDOWS if windows == "several" else None,
    )
    run(config, run_folder, make_corpus(audio_folder))
