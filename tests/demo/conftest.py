"""Skips tests of speech where the extra `demo`, which brings the synthesiser, is not installed."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def speaks():
    if importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("espeakng-loader is not installed: pip install '.[demo]'")
