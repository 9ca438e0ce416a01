"""The TPU compiler, where it is installed."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def tpu_compiler():
    """Skips where a program cannot be compiled for a TPU."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install '.[plan]'")
