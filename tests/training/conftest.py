"""What the tests of training share: tiny models, speech made of noise, cheap compiles."""

import runpy
import types
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """XLA without its optimisations: what is proved here does not depend on them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


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
