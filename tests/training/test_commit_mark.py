"""Checkpoints where nothing can be renamed: complete with their digest and Orbax's mark."""

import functools

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint._src.path.atomicity import CommitFileTemporaryPath

from fastwhisper_jax.errors import IntegrityError
from fastwhisper_jax.training import checkpoints
from fastwhisper_jax.training.checkpoints import Checkpoints


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A local folder in which Orbax saves as in an object store."""
    marked = functools.partial(ocp.AsyncCheckpointer, temporary_path_class=CommitFileTemporaryPath)
    monkeypatch.setattr(ocp, "AsyncCheckpointer", marked)
    monkeypatch.setattr(checkpoints, "is_remote", lambda path: True)
    return tmp_path / "checkpoints"


def save(folder, *steps):
    with Checkpoints(folder, keep=2) as saved:
        for step in steps:
            saved.save(step, {"x": jnp.full(3, step)}, {"cursor": step})


def restored(folder):
    with Checkpoints(folder, keep=2) as saved:
        found = saved.restore({"x": jnp.zeros(3, jnp.int32)})
    return found and (found.step, np.asarray(found.state["x"]).tolist(), len(found.skipped))


def test_the_newest_are_kept_and_read_back(folder):
    assert restored(folder) is None
    save(folder, 1, 2, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    assert restored(folder) == (3, [3, 3, 3], 0)


def test_a_save_that_was_broken_off_is_passed_over_and_made_again(folder):
    save(folder, 1, 2)
    (folder / "2" / "digest.json").unlink()
    (folder / "2" / "commit_success.txt").unlink()
    assert restored(folder) == (1, [1, 1, 1], 0)
    save(folder, 2)
    assert restored(folder) == (2, [2, 2, 2], 0)


def test_a_damaged_one_is_passed_over(folder):
    save(folder, 1, 2)
    for step in (2, 1):
        files = [path for path in (folder / str(step) / "state").rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        largest.write_bytes(bytes(largest.stat().st_size))
        if step == 2:
            assert restored(folder) == (1, [1, 1, 1], 1)
    with pytest.raises(IntegrityError, match="no good checkpoint"):
        restored(folder)
