"""A whole training: what it logs, and that however it is broken off it ends the same."""

import contextlib
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.distillation.run import make_batch_schedule
from fastwhisper_jax.errors import InputError, Interrupted, TrainingError
from fastwhisper_jax.training import loop
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.task import Phase

LOGGED = {
    "step",
    "loss",
    "ce",
    "kl_teacher",
    "kl_self",
    "accuracy",
    "teacher_accuracy",
    "teacher_weight",
    "self_weight",
    "ce_weight",
    "learning_rate",
    "grad_norm",
    "step_seconds",
    "samples_per_second",
}
EVALUATED_AT = 5


@pytest.fixture(scope="module")
def corpus(audio):
    return tiny.make_corpus(audio)


class RecordedStep(loop.PhasedStep):
    """Keeps the phase of every update, and hides the teacher's decoder once it has let go."""

    latest = None
    teacher_end = math.inf

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.phases = []
        RecordedStep.latest = self

    def __call__(self, step, state, teacher_params, batch):
        if step >= RecordedStep.teacher_end:
            teacher_params = {"encoder": teacher_params["encoder"]}
        self.phases.append(self._phase_at(step))
        return super().__call__(step, state, teacher_params, batch)


class Whole:
    """A run from beginning to end that nothing has disturbed."""

    def __init__(self, corpus, folder, kind):
        self.run_dir = folder / "run"
        self.cache = None if kind == "audio" else str(folder / "cache")
        self.windows = tiny.SEVERAL_WINDOWS if kind == "several windows" else None
        self.config = tiny.make_config(
            self.cache, windows=self.windows, eval_every=EVALUATED_AT, save_every=4
        )
        self.scored = []
        progress = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(progress):
            patch.setattr(loop, "PhasedStep", RecordedStep)
            patch.setattr(RecordedStep, "teacher_end", math.inf if self.cache else tiny.TEACHER_END)
            state = tiny.run(self.config, self.run_dir, corpus, score=self._score)
            self.step = RecordedStep.latest
        self.state = jax.device_get(state)
        self.progress = progress.getvalue()
        lines = (self.run_dir / "metrics.jsonl").read_text().splitlines()
        self.rows = [json.loads(line) for line in lines]

    def _score(self, params):
        self.scored.append(params)
        return {"eval_wer": 0.25}


@pytest.fixture(scope="module", params=["audio", "cache", "several windows"])
def whole(request, corpus, tmp_path_factory):
    return Whole(corpus, tmp_path_factory.mktemp("whole"), request.param)


def assert_same_bits(ours, theirs):
    ours = jax.device_get(ours)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_metrics_hold_one_object_a_logged_step_with_every_field(whole):
    assert [row["step"] for row in whole.rows] == list(range(1, tiny.STEPS + 1))
    for row in whole.rows:
        assert LOGGED <= row.keys()
        terms = {"kl_teacher": row["teacher_weight"], "kl_self": row["self_weight"]}
        terms["teacher_accuracy"] = row["teacher_weight"]
        not_run = {name for name, weight in terms.items() if weight == 0}
        assert {name for name, value in row.items() if value is None} == not_run
        assert all(math.isfinite(value) for value in row.values() if value is not None)
    evaluated = [row["step"] for row in whole.rows if "eval_ce" in row]
    assert evaluated == [EVALUATED_AT, 2 * EVALUATED_AT, tiny.STEPS]
    assert {row["eval_wer"] for row in whole.rows if "eval_wer" in row} == {0.25}
    assert len(whole.scored) == 3
    assert "12/12 steps" in whole.progress
    assert list((whole.run_dir / "tensorboard").iterdir())


def test_a_logged_weight_is_that_of_the_updates_completed_before(whole):
    floor = 0.3 if whole.cache else 0.0
    for row in whole.rows:
        before = row["step"] - 1
        teacher = np.interp(before, [0, tiny.TEACHER_END], [1.0, floor])
        itself = np.interp(before, [tiny.SELF_BEGIN - 1, tiny.SELF_BEGIN + 2], [0.0, 0.5])
        np.testing.assert_allclose(row["teacher_weight"], teacher, atol=1e-6)
        np.testing.assert_allclose(row["self_weight"], itself, atol=1e-6)
        assert ((row["kl_teacher"] or 0) > 0) == (teacher > 0)


def test_the_student_learns(whole):
    assert whole.rows[-1]["ce"] < whole.rows[0]["ce"]


def test_each_phase_is_compiled_once_a_window_and_the_teacher_is_not_run_after_its_last(
    corpus, whole
):
    """Where its decoder is not run, it was not even there: see RecordedStep."""
    has_let_go = whole.cache is None
    expected = [
        Phase(step < tiny.TEACHER_END or not has_let_go, step >= tiny.SELF_BEGIN)
        for step in range(tiny.STEPS)
    ]
    assert whole.step.phases == expected
    assert whole.step.compiled.keys() == set(expected)
    layouts = make_batch_schedule(
        whole.config, corpus, tiny.pair_shapes(whole.config).student.windows
    )
    heard = {phase: set() for phase in expected}
    for layout, phase in zip(layouts, expected, strict=True):
        heard[phase].add(layout.window_seconds)
    sizes = {phase: step._cache_size() for phase, step in whole.step.compiled.items()}
    assert sizes == {phase: len(windows) for phase, windows in heard.items()}
    assert set().union(*heard.values()) == set(whole.windows or (1.0,))


def test_checkpoints_are_the_newest_and_hold_the_end(whole):
    with Checkpoints(whole.run_dir / loop.CHECKPOINTS) as checkpoints:
        assert checkpoints.steps() == [8, tiny.STEPS]
        restored = checkpoints.restore(whole.state)
    assert_same_bits(restored.state, whole.state)


def test_a_finished_run_is_returned_as_it_is(corpus, whole):
    before = (whole.run_dir / "metrics.jsonl").read_bytes()
    assert_same_bits(tiny.run(whole.config, whole.run_dir, corpus), whole.state)
    assert (whole.run_dir / "metrics.jsonl").read_bytes() == before


def test_changed_data_is_an_input_error(corpus, whole):
    label = corpus.tokens[0].label
    tokens = (corpus.tokens[0]._replace(label=(label[0] + 1, *label[1:])), *corpus.tokens[1:])
    changed = dataclasses.replace(corpus, tokens=tokens)
    with pytest.raises(InputError, match="was trained on other data than data.train now holds"):
        tiny.run(whole.config, whole.run_dir, changed)


def test_stopped_by_sigterm_and_started_again_it_ends_the_same(corpus, whole, tmp_path):
    def ask_to_stop(params):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Interrupted, match=r"stopped after step 6 of 12, which is saved"):
        tiny.run(whole.config, tmp_path, corpus, score=ask_to_stop)
    state = tiny.run(whole.config, tmp_path, corpus)
    assert_same_bits(state, whole.state)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole.rows]


def test_killed_and_started_again_it_ends_the_same(audio, corpus, whole, tmp_path):
    """kill -9 of a process between two updates, a checkpoint after every one under way."""
    run_dir = tmp_path / "run"
    cache = None if whole.cache is None else str(tmp_path / "cache")
    metrics = run_dir / "metrics.jsonl"
    windows = "one" if whole.windows is None else "several"
    command = [sys.executable, tiny.__file__, run_dir, audio, cache or "-", windows]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + 500
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.is_file() and len(metrics.read_text().splitlines()) >= 7:
                break
            time.sleep(0.01)
        process.kill()
        output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    steps = [path.name for path in (run_dir / loop.CHECKPOINTS).iterdir()]
    assert {"5", "6", "7", "8"} & set(steps) and "12" not in steps
    state = tiny.run(tiny.make_config(cache, windows=whole.windows), run_dir, corpus)
    assert_same_bits(state, whole.state)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(corpus, tmp_path):
    """Started again with data that is mended, it goes on from what was finite."""
    alone = tiny.ObjectiveConfig(teacher_weight=tiny.ScheduleConfig())
    config = tiny.make_config(None, alone, log_every=50, save_every=2)
    good = tiny.make_data(config, corpus, tiny.make_mesh_of_one())
    layout = make_batch_schedule(config, corpus, tiny.pair_shapes().student.windows)[4]
    batch_4 = [[corpus.utterances[index] for index in row] for row in layout.rows]

    def load_inputs(rows, layout):
        inputs = good.load_inputs(rows, layout)
        if rows == batch_4:
            inputs["audio"][:] = np.nan
        return inputs

    broken = good._replace(load_inputs=load_inputs)
    with pytest.raises(TrainingError, match=r"loss is nan in steps 5 to 6; lower"):
        tiny.run(config, tmp_path, corpus, broken)
    with Checkpoints(tmp_path / loop.CHECKPOINTS) as checkpoints:
        assert checkpoints.steps() == [2, 4]
    state = tiny.run(config, tmp_path, corpus, good)
    assert int(state.step) == tiny.STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
