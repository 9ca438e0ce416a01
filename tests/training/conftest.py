"""What the tests of training share: tiny models, and speech made of noise."""

import math
import runpy
import types
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="session")
def tiny():
    """The names of tiny_run.py, which is a script as well: a test has to kill a process."""
    path = Path(__file__).with_name("tiny_run.py")
    return types.SimpleNamespace(**runpy.run_path(str(path)), path=path)


@pytest.fixture(scope="session")
def audio(tiny, tmp_path_factory):
    """A folder of short recordings."""
    folder = tmp_path_factory.mktemp("audio")
    tiny.write_audio(folder)
    return folder


@pytest.fixture(scope="session")
def bytes_per_device():
    """A function of shapes and their shardings to the bytes that they take on each device."""

    def size(shape, sharding):
        return math.prod(sharding.shard_shape(shape.shape)) * shape.dtype.itemsize

    return lambda shapes, shardings: sum(jax.tree.leaves(jax.tree.map(size, shapes, shardings)))
