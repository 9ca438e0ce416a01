"""A run directory of November 2026 resumes, trains on to the metrics of then, and exports.

`run.tar.gz` was written by the code before the parts were moved into rooms: a teacher, eight
recordings, the run of `recipe.py` as it stood after step 4 of 8, the metrics of all eight steps,
and the weights that were exported after the last. It is never written anew.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ARCHIVE = Path(__file__).with_name("run.tar.gz")
HERE = "@HERE@"
TIMES = {"step_seconds", "samples_per_second"}


@pytest.fixture
def golden(tmp_path) -> Path:
    """The archive, with paths of this machine."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    for name in ("recipe.py", "run/config.json"):
        path = tmp_path / name
        path.write_text(path.read_text().replace(HERE, str(tmp_path)))
    return tmp_path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_metrics(ours, stored):
    assert [row["step"] for row in ours] == [row["step"] for row in stored]
    for ours_row, stored_row in zip(ours, stored, strict=True):
        assert ours_row.keys() == stored_row.keys()
        for name in stored_row.keys() - TIMES:
            if stored_row[name] is None:
                assert ours_row[name] is None, name
            else:
                assert ours_row[name] == pytest.approx(stored_row[name], rel=2e-5, abs=1e-6), name


def assert_same_weights(exported, golden):
    ours = load_file(exported / "model.safetensors")
    stored = load_file(golden / "exported.safetensors")
    assert ours.keys() == stored.keys()
    for name, tensor in stored.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=2e-5, err_msg=name)


def test_an_old_run_goes_on_to_the_metrics_and_the_weights_of_then(golden, fastwhisper):
    assert fastwhisper("train", golden / "recipe.py", "--run-dir", golden / "run").code == 0
    assert_same_metrics(rows(golden / "run/metrics.jsonl"), rows(golden / "metrics.jsonl"))
    assert fastwhisper("export", golden / "run", "--out", golden / "exported").code == 0
    assert_same_weights(golden / "exported", golden)


def test_an_old_run_exports_as_it_is(golden, fastwhisper):
    done = fastwhisper("export", golden / "run", "--out", golden / "exported")
    assert done.code == 0
    assert done.out.startswith("exported step 4 of")


def test_a_new_run_of_the_same_recipe_has_the_metrics_of_then(golden, fastwhisper):
    assert fastwhisper("train", golden / "recipe.py", "--run-dir", golden / "new").code == 0
    assert_same_metrics(rows(golden / "new/metrics.jsonl"), rows(golden / "metrics.jsonl"))
