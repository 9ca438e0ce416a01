"""What several tests share: `from support import ...`. Its asserts are explained like a test's."""

import pytest

pytest.register_assert_rewrite(
    "support.pages",
    "support.restated_search",
    "support.scripted_model",
    "support.tiny_decoding",
    "support.tiny_run",
    "support.tiny_step",
)
