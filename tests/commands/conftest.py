"""The modules here train and decode the same tiny models again and again."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def kept_compilations(shared_compilations):
    """What a module has compiled once it does not compile again."""
