"""A model family of ten lines goes through the same loop, step, checkpoints and feeding."""

import json
import shutil

import jax
import numpy as np
import pytest
from support import toy_family
from support.toy_family import STEPS, make_toy_run

from fastwhisper_jax.training.loop import CHECKPOINTS, train
from fastwhisper_jax.training.sharding import make_mesh


def mesh_of(count, fsdp=1):
    return make_mesh(-1, fsdp, devices=jax.devices()[:count])


def rows_of(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{n: x for n, x in row.items() if "second" not in n} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state of an undisturbed run on one device, and its directory."""
    run_dir = tmp_path_factory.mktemp("toy")
    return jax.device_get(train(make_toy_run(mesh_of(1)), run_dir)), run_dir


def test_it_learns_its_teacher_and_logs_its_own_metrics(whole):
    state, run_dir = whole
    rows = rows_of(run_dir)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    np.testing.assert_allclose([row["toy_weight"] for row in rows], 0.1 * np.arange(STEPS))
    assert [row["step"] for row in rows if "distance" in row] == [5, 10]
    assert int(state.step) == STEPS
    assert state.frozen_params["scale"] == 2.0


def test_it_resumes_bit_for_bit(whole, tmp_path):
    state, run_dir = whole
    shutil.copytree(run_dir, tmp_path / "run")
    for step in (6, 9, 10):
        shutil.rmtree(tmp_path / "run" / CHECKPOINTS / str(step))
    resumed = train(make_toy_run(mesh_of(1)), tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), state)
    assert rows_of(tmp_path / "run") == rows_of(run_dir)


@pytest.mark.parametrize(("fsdp", "accumulation_steps"), [(1, 1), (4, 2)])
def test_eight_devices_make_the_updates_of_one(whole, tmp_path, fsdp, accumulation_steps):
    state, run_dir = whole
    mesh = mesh_of(8, fsdp)
    divided = train(make_toy_run(mesh, accumulation_steps=accumulation_steps), tmp_path)
    weight = divided.params["weight"]
    columns = toy_family.OUTPUTS // fsdp
    assert {shard.data.shape for shard in weight.addressable_shards} == {(4, columns)}
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6),
        jax.device_get(divided),
        state,
    )
    losses = [[row["loss"] for row in rows_of(folder)] for folder in (tmp_path, run_dir)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
