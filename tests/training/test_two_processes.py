"""Two processes of four devices train as one process of eight, stop as one and fail as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file
from support.compiler_flags import compiler_flags

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

UTTERANCES, EPOCHS, BATCHES_AN_EPOCH = 20, 2, 3
TIMES = {"step_seconds", "samples_per_second"}
DEADLINE_SECONDS = 240

RECIPE = '''"""ASKD in windows of half a second and of one."""

from fastwhisper_jax.config import *

config = Config(
    teacher=TeacherConfig(path={teacher!r}),
    student=StudentConfig(decoder_layers=1, dropout=0.1, windows_seconds=(0.5, 1.0)),
    data=DataConfig(train=({data!r},), target_buckets=(16,), threads=1),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig("linear", init_value=1.0, end_value=0.2, steps=3),
        self_weight=ScheduleConfig("linear", end_value=0.5, begin=2, steps=2),
        ema_decay=0.9,
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, decay="constant", weight_decay=0.1),
    training=TrainingConfig(
        epochs={epochs}, log_every=1, save_every=2, eval_batch_size=8, max_new_tokens=4
    ),
    mesh=MeshConfig(fsdp=4),
)
'''


class Ended(NamedTuple):
    """What a process left."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def environment():
    """Of processes with four devices."""
    return os.environ | {
        "XLA_FLAGS": compiler_flags(4),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }


@pytest.fixture(scope="module")
def data(folder) -> Path:
    generator = np.random.default_rng(0)
    lines = []
    (folder / "speech").mkdir()
    for index in range(UTTERANCES):
        noise = 0.1 * generator.normal(size=4_000 + 500 * index)
        soundfile.write(folder / "speech" / f"{index}.wav", noise, 16_000)
        text = " ".join("abcdefgh"[: 1 + index % 4])
        lines.append(json.dumps({"audio": f"{index}.wav", "text": text, "id": f"u{index}"}))
    path = folder / "speech" / "all.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def recipe(folder, data, tiny_dims, write_teacher, make_params):
    dims = ModelDimensions(**vars(tiny_dims) | {"n_audio_ctx": 50})
    teacher = write_teacher(folder / "teacher", dims, make_params(dims))
    path = folder / "recipe.py"
    path.write_text(RECIPE.format(teacher=str(teacher), data=str(data), epochs=EPOCHS))
    return path


@pytest.fixture(scope="module")
def start(folder, environment, recipe):
    """A function that starts the two processes of a run; harm is done in the second."""

    def start(name, harm="none", *options, recipe=recipe):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        script = Path(__file__).with_name("one_of_two.py")
        processes = []
        for index in range(2):
            seen = folder / f"{name}-{index}.jsonl"
            does = harm if index == 1 else "none"
            command = [sys.executable, script, seen, does, "train", recipe]
            command += ["--run-dir", folder / name]
            joins = {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            }
            processes.append(
                subprocess.Popen(
                    [*command, *options],
                    env=environment | joins,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return processes

    return start


def ended(processes):
    """What both left; no process outlives the test."""
    try:
        outputs = [process.communicate(timeout=DEADLINE_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        Ended(process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def rows_of(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def whole(start, folder, data):
    """Two processes from the first step to the last, evaluated at the end."""
    left = ended(start("whole", "none", "--data.eval", data))
    assert [process.code for process in left] == [0, 0], left
    return folder / "whole", left


@pytest.fixture(scope="module")
def alone(whole, fastwhisper, recipe, folder, data):
    """The same in this process, which has eight devices."""
    done = fastwhisper("train", recipe, "--run-dir", folder / "alone", "--data.eval", data)
    assert done.code == 0, done.err
    return folder / "alone"


@pytest.fixture(scope="module")
def exported(fastwhisper, folder):
    """A function of a run to its exported folder."""

    def exported(run_dir):
        out = folder / f"{run_dir.name}-exported"
        if not out.exists():
            done = fastwhisper("export", run_dir, "--out", out)
            assert done.code == 0, done.err
        return out

    return exported


def test_losses_are_those_of_one_process_with_all_devices(whole, alone):
    ours, theirs = rows_of(whole[0]), rows_of(alone)
    assert [row["step"] for row in ours] == list(range(1, EPOCHS * BATCHES_AN_EPOCH + 1))
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        # A term that was not run is null in both.
        values = (np.array([*logged.values()], float) for logged in (row, other))
        np.testing.assert_allclose(*values, atol=1e-5, rtol=0)
    assert {"eval_ce", "eval_wer"} <= ours[-1].keys()


def test_every_utterance_is_read_by_one_process_once_an_epoch(whole, folder):
    shares = [
        [json.loads(line) for line in (folder / f"whole-{index}.jsonl").read_text().splitlines()]
        for index in range(2)
    ]
    everything = sorted(f"u{index}" for index in range(UTTERANCES))
    orders = []
    for epoch in range(EPOCHS):
        steps = range(epoch * BATCHES_AN_EPOCH, (epoch + 1) * BATCHES_AN_EPOCH)
        read = [name for step in steps for share in shares for name in share[step]]
        assert sorted(read) == everything
        assert all(len(share[step]) <= 4 for step in steps for share in shares)
        orders.append(read)
    assert orders[0] != orders[1]


def test_the_export_is_that_of_one_process_to_a_millionth(whole, alone, exported):
    """Not to the last bit: sums over devices are added up in another order."""
    ours, theirs = exported(whole[0]), exported(alone)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    weights, others = (load_file(path / "model.safetensors") for path in (ours, theirs))
    assert weights.keys() == others.keys()
    for name, leaf in weights.items():
        np.testing.assert_allclose(leaf, others[name], atol=1e-6, rtol=0, err_msg=name)


def test_process_0_alone_writes_and_speaks(whole):
    run_dir, (first, second) = whole
    assert len(list((run_dir / "tensorboard").iterdir())) == 1
    assert "mesh data 2 x fsdp 4" in first.out and "done; export" in first.out
    assert (second.out, second.err) == ("", "")


def test_sigterm_at_one_stops_both_after_the_same_step_and_they_go_on(
    start, folder, data, whole, exported
):
    processes = start("stopped", "none", "--data.eval", data)
    metrics, deadline = folder / "stopped/metrics.jsonl", time.monotonic() + DEADLINE_SECONDS
    while not (metrics.is_file() and metrics.read_text()) and time.monotonic() < deadline:
        assert processes[1].poll() is None, ended(processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    left = ended(processes)
    assert [process.code for process in left] == [75, 75], left
    lines = {process.err.splitlines()[-1] for process in left}
    assert len(lines) == 1 and lines.pop().startswith("interrupted: stopped after step ")
    step = len(rows_of(folder / "stopped"))
    assert step < EPOCHS * BATCHES_AN_EPOCH
    assert str(step) in {path.name for path in (folder / "stopped/checkpoints").iterdir()}

    left = ended(start("stopped", "none", "--data.eval", data))
    assert [process.code for process in left] == [0, 0], left
    assert f"resumed from the checkpoint of step {step}" in left[0].err
    assert rows_of(folder / "stopped") == rows_of(whole[0])
    runs = (folder / "stopped", whole[0])
    ours, theirs = (load_file(exported(run) / "model.safetensors") for run in runs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_an_encoder_cache_that_two_have_filled_is_whole(
    start, fastwhisper, tiny_recipe, tiny_manifest, folder
):
    """Another run computes nothing anew. Its losses are the same, and the checkpoints it keeps."""
    cache = ("--data.cache", str(folder / "cache"), "--training.steps", "2")
    cache += ("--data.eval", f"near={tiny_manifest}", "--training.keep_best=near/eval_ce")
    cache += ("--training.eval_every", "1", "--training.evaluate_at_start=true")
    cache += ("--training.keep_checkpoints", "3")
    left = ended(start("cached", "none", *cache, recipe=tiny_recipe))
    assert [process.code for process in left] == [0, 0], left
    arrays = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.npy")}
    assert len(arrays) == 2 * len(tiny_manifest.read_text().splitlines())
    done = fastwhisper("train", tiny_recipe, "--run-dir", folder / "cached-alone", *cache)
    assert done.code == 0, done.err
    assert {p: p.stat().st_mtime_ns for p in (folder / "cache").rglob("*.npy")} == arrays
    runs = [folder / "cached", folder / "cached-alone"]
    losses = [[row["near/eval_ce"] for row in rows_of(run)] for run in runs]
    np.testing.assert_allclose(*losses, atol=1e-5, rtol=0)
    assert losses[0] == sorted(losses[0], reverse=True)
    for run in runs:  # step 1 is saved only because it is better than the start
        assert {path.name for path in (run / "checkpoints").iterdir()} == {"0", "1", "2"}


def test_what_one_process_cannot_read_ends_both_with_one_line(start):
    first, second = ended(start("failed", "fail", "--training.epochs", "10"))
    assert (first.code, second.code) == (2, 2), (first, second)
    assert second.err == "error: audio.wav cannot be read here; mend it\n"
    assert first.err.splitlines()[-1] == "error: process 1: audio.wav cannot be read here; mend it"
    assert "Traceback" not in first.err


def test_one_weight_of_another_teacher_at_one_process_ends_both_before_training(start, folder):
    first, second = ended(start("differing", "differ"))
    assert (first.code, second.code) == (2, 2), (first, second)
    assert second.err.startswith("error: process 1 has another teacher or student than process 0;")
    assert "process 1 has another teacher or student" in first.err.splitlines()[-1]
    assert not (folder / "differing").exists()


def test_a_process_that_dies_ends_the_other(start):
    first, second = ended(start("died", "die", "--training.epochs", "10"))
    assert second.code == -signal.SIGKILL
    assert first.code not in (0, 2, 75), first
