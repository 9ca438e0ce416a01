"""The best checkpoint stays beside the newest ones, however a run is broken off."""

import collections
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support.toy_family import STEPS, make_toy_run

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import path_of
from fastwhisper_jax.training import checkpoints as module
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.loop import CHECKPOINTS, train
from fastwhisper_jax.training.sharding import make_mesh

TESTS = Path(__file__).parents[1]


def save(folder, scores, keep=1, name="wer"):
    """Saves a state for each step with its score; returns the steps that are kept."""
    with Checkpoints(folder, keep, name) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, {"x": jnp.full(3, step)}, {}, {"wer": score, "ce": -score})
        checkpoints.wait()
        return checkpoints.steps()


def best(folder, name="wer"):
    with Checkpoints(folder, keep_best=name) as checkpoints:
        return checkpoints.best_good_step()


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ({1: 0.5, 2: 0.2, 3: 0.4, 4: 0.3}, 1, [2, 4]),
        ({1: 0.5, 2: 0.2, 3: 0.4, 4: 0.3}, 2, [2, 3, 4]),
        ({1: 0.5, 2: 0.4, 3: 0.3}, 1, [3]),
        ({1: 0.2, 2: 0.2, 3: 0.2}, 1, [1, 3]),  # the earliest of equals
        ({1: math.nan, 2: 0.9, 3: math.nan}, 1, [2, 3]),
        ({0: 0.1, 1: 0.2}, 1, [0, 1]),
    ],
)
def test_the_best_is_kept_beside_the_newest(tmp_path, scores, keep, kept):
    assert save(tmp_path, scores, keep) == kept


def test_the_best_follows_from_what_is_on_disk(tmp_path):
    for step, score in {1: 0.5, 2: 0.2, 3: 0.4, 4: 0.3}.items():
        save(tmp_path, {step: score})
    assert best(tmp_path) == (2, ())
    assert best(tmp_path, "ce") == (4, ())  # of those that are there
    assert best(tmp_path, "cer") == best(tmp_path, None) == (None, ())
    assert save(tmp_path, {5: 0.9}, name=None) == [5]


def test_a_checkpoint_of_before_scores_were_kept_is_never_the_best(tmp_path):
    save(tmp_path, {1: 0.5})
    about = tmp_path / "1/metadata/metadata"
    values = json.loads(about.read_text())
    del values["scores"]
    about.write_text(json.dumps(values))
    module.digests.write(path_of(tmp_path / "1"))
    assert best(tmp_path) == (None, ())
    assert save(tmp_path, {2: 0.9, 3: 1.0}) == [2, 3]


def damage(folder, step):
    (folder / str(step) / "state" / "manifest.ocdbt").write_bytes(b"")


def test_a_damaged_best_one_is_passed_over_and_makes_room_for_the_next(tmp_path):
    save(tmp_path, {1: 0.2, 2: 0.3, 3: 0.4}, keep=2)
    damage(tmp_path, 1)
    step, (line,) = best(tmp_path)
    assert step == 2 and str(tmp_path / "1") in line and "manifest.ocdbt" in line
    with Checkpoints(tmp_path, keep=1, keep_best="wer") as checkpoints:
        assert checkpoints.is_best(4, {"wer": 0.25}) and not checkpoints.is_best(4, {"wer": 0.3})
        checkpoints.save(4, {"x": jnp.zeros(3)}, {}, {"wer": 0.25})
        checkpoints.wait()
        assert checkpoints.steps() == [4]


def test_a_better_one_of_a_timeline_that_was_given_up_does_not_count(tmp_path):
    save(tmp_path, {1: 0.5, 2: 0.4, 3: 0.1}, keep=3)
    with Checkpoints(tmp_path, keep=3, keep_best="wer") as checkpoints:
        assert checkpoints.is_best(2, {"wer": 0.3})
    assert save(tmp_path, {2: 0.3}, keep=3) == [1, 2]
    assert best(tmp_path) == (2, ())


def test_process_0_decides_whether_a_state_is_the_best(tmp_path, monkeypatch):
    save(tmp_path, {1: 0.5})
    with Checkpoints(tmp_path, keep_best="wer") as checkpoints:
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(checkpoints, "steps", lambda: pytest.fail("was listed"))
        for found in (0, 1):
            monkeypatch.setattr(module, "_from_first", lambda _, found=found: found)
            assert checkpoints.is_best(2, {"wer": 0.1}) == found


def make_run(scores, **settings):
    """A toy run that scores what a test says, and by it keeps one checkpoint beside the newest."""
    run = make_toy_run(make_mesh(1, 1, devices=jax.devices()[:1]))
    changed = {"save_every": 3, "eval_every": 2, "keep_checkpoints": 1, "keep_best": "eval_wer"}
    return run._replace(
        task=run.task._replace(score=lambda state, _: {"eval_wer": scores[int(state.step)]}),
        settings=dataclasses.replace(run.settings, **changed | settings),
    )


SCORES = {2: 0.5, 4: 0.1, 6: 0.3, 8: 0.2, 10: 0.4}


def steps_of(run_dir):
    names = [path.name for path in (run_dir / CHECKPOINTS).iterdir()]
    return sorted(int(name) for name in names if name.isdecimal())


def rows_of(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{n: x for n, x in row.items() if "second" not in n} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    train(make_run(SCORES), run_dir)
    return run_dir


def test_a_new_best_is_saved_where_it_was_scored_and_survives_worse_ones(whole):
    assert steps_of(whole) == [4, STEPS]
    assert best(whole / CHECKPOINTS, "eval_wer") == (4, ())


def test_what_is_no_new_best_is_not_saved(tmp_path):
    saved = []

    class Noted(Checkpoints):
        def save(self, step, *rest):
            saved.append(step)
            super().save(step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastwhisper_jax.training.loop.Checkpoints", Noted)
        train(make_run(SCORES, save_every=0), tmp_path)
    assert saved == [2, 4, STEPS]


def test_scores_of_other_data_are_not_compared(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    run = make_run(SCORES)
    changed = run._replace(metadata=run.metadata | {"eval_data": {"": "other vectors"}})
    with pytest.raises(InputError, match="has scores of other data than data.eval now holds"):
        train(changed, tmp_path / "run")
    train(
        changed._replace(settings=dataclasses.replace(run.settings, keep_best=None)),
        tmp_path / "run",
    )


KILLED = """
    import os, signal, sys
    import jax
    jax.config.update("jax_numpy_rank_promotion", "raise")
    from training_test import SCORES, make_run, train
    from fastwhisper_jax.files import Path

    class Deadly(dict):
        def __getitem__(self, step):
            if step == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(step)

    train(make_run(Deadly(SCORES)), Path(sys.argv[1]))
"""


def test_killed_and_started_again_it_keeps_the_same(whole, tmp_path):
    """kill -9 while step 8 is scored: step 4 was the best, and the save of step 6 is under way."""
    (tmp_path / "training_test.py").symlink_to(__file__)
    paths = [str(tmp_path), str(TESTS), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "run"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 4 in steps_of(tmp_path / "run") and 8 not in steps_of(tmp_path / "run")
    train(make_run(SCORES), tmp_path / "run")
    assert steps_of(tmp_path / "run") == steps_of(whole)
    assert best(tmp_path / "run" / CHECKPOINTS, "eval_wer") == (4, ())
    assert rows_of(tmp_path / "run") == rows_of(whole)


def test_a_run_that_is_evaluated_at_its_start_has_a_row_of_step_0_and_may_have_its_best_there(
    tmp_path,
):
    train(make_run(SCORES | {0: 0.01}, evaluate_at_start=True), tmp_path)
    assert rows_of(tmp_path)[0] == {"step": 0, "eval_wer": 0.01}
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(STEPS + 1))
    assert steps_of(tmp_path) == [0, STEPS]


@pytest.mark.parametrize("keep_best", [None, "eval_wer"])
def test_a_resumed_run_does_not_evaluate_its_start_again(tmp_path, keep_best):
    """Not even one that was broken off before its first update was saved."""
    asked = collections.Counter()

    class Failing(dict):
        def __getitem__(self, step):
            asked[step] += 1
            if step == 2 and asked[step] == 1:
                raise InputError("the eval set is gone")
            return super().__getitem__(step)

    scores, settings = Failing(SCORES | {0: 0.9}), {"evaluate_at_start": True}
    with pytest.raises(InputError, match="gone"):
        train(make_run(scores, keep_best=keep_best, **settings), tmp_path)
    assert steps_of(tmp_path) == [0]
    train(make_run(scores, keep_best=keep_best, **settings), tmp_path)
    assert asked == {0: 1, 2: 2, 4: 1, 6: 1, 8: 1, 10: 1}
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(STEPS + 1))
