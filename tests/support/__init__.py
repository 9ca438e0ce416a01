"""What several tests share: `from support import ...`. Its asserts are explained like a test's."""

import jaxtyping
import pytest

# Array annotations are checked in tests only. The hook must come before the modules are imported.
jaxtyping.install_import_hook(
    [
        "fastwhisper_jax.losses.askd",
        "fastwhisper_jax.losses.chunked",
        "fastwhisper_jax.losses.closed_form",
        "fastwhisper_jax.models.whisper.cached_decoder",
        "fastwhisper_jax.models.whisper.forward",
    ],
    "beartype.beartype",
)
pytest.register_assert_rewrite(
    "support.pages",
    "support.restated_search",
    "support.scripted_model",
    "support.tiny_decoding",
    "support.tiny_run",
    "support.tiny_step",
)
