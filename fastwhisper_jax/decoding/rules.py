"""What a model may emit: the rules that greedy decoding and beam search share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


@dataclasses.dataclass(frozen=True)
class DecodingRules:
    """What a model may emit; hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        end_of_text: the token that ends a transcript, and fills what follows it.
        suppress: tokens that are never emitted.
        begin_suppress: tokens that are not emitted right after the prompt.
    """

    end_of_text: int
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()

    def banned(self, n_vocab: int) -> np.ndarray:
        """What is added to scores over the vocabulary: (V,) float32, minus infinity or 0."""
        return _minus_infinity_at(self.suppress, n_vocab)

    def banned_first(self, n_vocab: int) -> np.ndarray:
        """`banned` right after the prompt."""
        return _minus_infinity_at(self.suppress + self.begin_suppress, n_vocab)


def decoding_rules(generation_config: Mapping[str, Any]) -> DecodingRules:
    """Reads the rules from a model's generation_config.json.

    Args:
        generation_config: its content, checked when it was loaded; `suppress_tokens` and
            `begin_suppress_tokens` may be missing or null, as in fine-tuned models: then nothing is
            suppressed.
    """
    end_of_text = generation_config["eos_token_id"]
    return DecodingRules(
        end_of_text=end_of_text[0] if isinstance(end_of_text, list) else end_of_text,
        suppress=tuple(generation_config.get("suppress_tokens") or ()),
        begin_suppress=tuple(generation_config.get("begin_suppress_tokens") or ()),
    )


def new_token_room(dims: ModelDimensions, prompt_length: int, max_new_tokens: int) -> int:
    """How many tokens can be emitted: at most max_new_tokens, and no more than the context holds.

    Raises:
        InputError: not a single one.
    """
    room = min(max_new_tokens, dims.n_text_ctx - prompt_length)
    if room < 1:
        raise InputError(
            f"max_new_tokens={max_new_tokens} after a prompt of {prompt_length} tokens leaves no "
            f"token to emit; use at least 1, and a prompt shorter than {dims.n_text_ctx} tokens"
        )
    return room


def _minus_infinity_at(tokens: tuple[int, ...], n_vocab: int) -> np.ndarray:
    banned = np.zeros(n_vocab, np.float32)
    banned[list(tokens)] = -np.inf
    return banned
