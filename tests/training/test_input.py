"""Batches reach the step in order from any step on, and each process reads its own rows."""

import contextlib
import threading
import time

import jax
import numpy as np
from support import tiny_run as tiny

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.distillation.run import make_batch_schedule
from fastwhisper_jax.training import input as feeding
from fastwhisper_jax.training.input import device_batches, local_rows
from fastwhisper_jax.training.sharding import make_mesh

WINDOWS = Windows((tiny.TEACHER.context_seconds,))


def collate_of(corpus):
    return lambda layout, rows: collate(
        layout, corpus, audio_inputs, end_of_text=tiny.END_OF_TEXT, local_rows=rows
    )


def pass_on(batch, step):
    return batch


def test_batches_from_a_later_step_are_the_rest_of_all_batches(audio):
    corpus = tiny.make_corpus(audio)
    schedule = make_batch_schedule(tiny.make_config(steps=7), corpus, WINDOWS)

    def batches_from(step):
        batches = device_batches(
            schedule, collate_of(corpus), pass_on, tiny.make_mesh_of_one(), start_step=step
        )
        return [jax.device_get(batch) for batch in batches]

    whole, rest = batches_from(0), batches_from(4)
    assert (len(whole), len(rest)) == (7, 3)
    for ours, theirs in zip(rest, whole[4:], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert batches_from(7) == []


def test_the_only_process_reads_every_row():
    assert local_rows(make_mesh(4, 2), 16) == tuple(range(16))
    assert local_rows(tiny.make_mesh_of_one(), 3) == (0, 1, 2)


def test_rows_follow_the_devices_and_not_the_number_of_the_process(monkeypatch):
    """On a mesh whose devices lie in another order than their processes."""
    devices = jax.devices()
    mesh = make_mesh(4, 2, devices=[devices[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)])
    ours = set(devices[:4])
    sharding = type(feeding.batch_sharding(mesh))

    def addressable(self, shape):
        indices = self.devices_indices_map(shape)
        return {device: index for device, index in indices.items() if device in ours}

    monkeypatch.setattr(sharding, "addressable_devices_indices_map", addressable)
    assert local_rows(mesh, 16) == (0, 1, 4, 5, 8, 9, 12, 13)


def test_reading_ends_where_the_loop_raises(audio):
    before = threading.active_count()
    corpus = tiny.make_corpus(audio)
    batches = device_batches(
        make_batch_schedule(tiny.make_config(steps=50), corpus, WINDOWS),
        collate_of(corpus),
        pass_on,
        tiny.make_mesh_of_one(),
    )
    with contextlib.suppress(ZeroDivisionError), contextlib.closing(batches):
        next(batches)
        raise ZeroDivisionError
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before
