"""What a plan counts is what training reads, for every mix of cache, windows and augmentation."""

import dataclasses

import jax
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.distillation import fill_caches as caching
from fastwhisper_jax.distillation.array_store import ArrayStore
from fastwhisper_jax.distillation.run import make_batch_schedule
from fastwhisper_jax.distillation.run_schedule import make_run_schedule
from fastwhisper_jax.distillation.shapes import batch_shapes
from fastwhisper_jax.distillation.task import RunData, make_task
from fastwhisper_jax.distillation.teacher_cache import CachedParts, cached_parts


def config_of(cache, *, student=None, teaches=True, masks=0, timestamps=0.0):
    """A recipe with changed fields of its student, who learns from labels alone if not taught."""
    objective = tiny.ObjectiveConfig(
        teacher_weight=tiny.ScheduleConfig(init_value=float(teaches)), ce_weight=1.0
    )
    config = tiny.make_config(cache, objective)
    return dataclasses.replace(
        config,
        student=dataclasses.replace(config.student, **student or {}),
        data=dataclasses.replace(config.data, time_masks=masks, timestamp_probability=timestamps),
    )


TWO = {"windows_seconds": (0.8, 1.0)}
SHORT = {"windows_seconds": (0.8, 1.0), "encoder_layers": 1}
TRAINED = {"frozen": ()}


@pytest.mark.parametrize(
    ("changes", "encoder_states", "teacher_states"),
    [
        ({}, True, True),
        ({"teaches": False}, True, False),
        ({"masks": 1}, False, True),
        ({"masks": 1, "teaches": False}, False, False),
        # The teacher runs in every step; alike, both read what one encoder has said.
        ({"timestamps": 0.5}, True, False),
        ({"timestamps": 0.5, "student": TWO}, False, False),
        ({"timestamps": 0.5, "student": TWO, "teaches": False}, True, False),
        ({"student": TWO}, True, True),
        ({"student": SHORT}, True, True),
        ({"student": TRAINED}, False, True),
        ({"student": TRAINED, "teaches": False}, False, False),
    ],
)
def test_a_cache_keeps_what_never_changes(changes, encoder_states, teacher_states):
    teaches = changes.get("teaches", True)
    for cache in (None, "cache"):
        config = config_of(cache, **changes)
        parts = cached_parts(config, tiny.pair_shapes(config), runs_teacher=teaches)
        expected = CachedParts(encoder_states, teacher_states)
        assert parts == (expected if cache else CachedParts(False, False))


@pytest.mark.parametrize("cached", [False, True], ids=["audio", "cache"])
@pytest.mark.parametrize("student", [{}, TWO, SHORT, TRAINED], ids=str)
@pytest.mark.parametrize("masks", [0, 1])
@pytest.mark.parametrize("timestamps", [0.0, 0.5])
@pytest.mark.parametrize("teaches", [False, True], ids=["labels alone", "teacher"])
def test_a_plan_counts_the_batches_that_training_reads(
    audio, monkeypatch, tmp_path, cached, student, masks, timestamps, teaches
):
    monkeypatch.setattr(caching.EncoderCache, "missing", lambda *_: [])
    monkeypatch.setattr(caching.TeacherCache, "fill", lambda *_: None)
    monkeypatch.setattr(ArrayStore, "read", lambda *_: np.zeros((1, 1), np.float16))
    config = config_of(
        str(tmp_path) if cached else None,
        student=student,
        teaches=teaches,
        masks=masks,
        timestamps=timestamps,
    )
    corpus, mesh = tiny.make_corpus(audio), tiny.make_mesh_of_one()
    models = tiny.pair_shapes(config)
    layouts = make_batch_schedule(config, corpus, models.student.windows)
    schedule = make_run_schedule(config.objective, config.optimizer, len(layouts))
    data = RunData(corpus, {}, audio_inputs, audio_inputs, tiny.END_OF_TEXT)
    if cached:
        pair, runs_teacher = tiny.loaded_pair(config), schedule.teacher_end > 0
        params = pair.teacher.params
        data = caching.with_caches(config, pair, params, data, layouts, mesh, runs_teacher)
    task = make_task(config, models, schedule, mesh, dict, data)
    one_a_window = {
        layout.window_seconds: layout for layout in map(layouts.__getitem__, range(len(layouts)))
    }
    assert tuple(sorted(one_a_window)) == models.student.windows.seconds
    for window, layout in one_a_window.items():
        read = jax.eval_shape(task.featurise, task.collate(layout, range(4)), np.int32(0))
        planned = batch_shapes(config, models, mesh, 4, tiny.LENGTH, teaches, window)
        assert {name: (x.shape, x.dtype) for name, x in read.items()} == {
            name: (x.shape, x.dtype) for name, x in planned.items()
        }
