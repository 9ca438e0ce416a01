"""Every test runs on 8 virtual CPU devices, with rank promotion refused."""

import os

# Both are read when jax is first imported, so they are set before that.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def _folder_from(variable: str, holds: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder that holds {holds}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable}={value} is not a folder; it must hold {holds}")
    return folder


@pytest.fixture(scope="session")
def real_teacher() -> Path:
    """The folder of whisper-base; that of whisper-tiny.en stands beside it."""
    return _folder_from("FASTWHISPER_REAL_TEACHER", "whisper-base's config.json and weights")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds asterisk-en, asterisk-es and fsdd-digits."""
    return _folder_from("FASTWHISPER_REAL_DATA", "asterisk-en, asterisk-es and fsdd-digits")
