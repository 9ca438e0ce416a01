"""What a model may emit: the rules that greedy decoding and beam search share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fastwhisper_jax.decoding.timestamps import TimestampRules, apply_timestamp_rules


@dataclasses.dataclass(frozen=True)
class DecodingRules:
    """What a model may emit; hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        end_of_text: the token that ends a transcript, and fills what follows it.
        suppress: tokens that are never emitted.
        begin_suppress: tokens that are not emitted right after the prompt.
        timestamps: the rules of timestamps; None decodes plain text.
    """

    end_of_text: int
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    timestamps: TimestampRules | None = None

    def banned(self, n_vocab: int, is_first: bool) -> np.ndarray:
        """(V,) float32 to add to scores: minus infinity for suppressed tokens, 0 for others."""
        banned = np.zeros(n_vocab, np.float32)
        banned[list(self.suppress + self.begin_suppress * is_first)] = -np.inf
        return banned


def decoding_rules(generation_config: Mapping[str, Any]) -> DecodingRules:
    """Reads the rules for plain text from a model's generation_config.json.

    Args:
        generation_config: its content, checked when it was loaded. `suppress_tokens` and
            `begin_suppress_tokens` may be missing or null, as in fine-tuned models: then nothing is
            suppressed.
    """
    end_of_text = generation_config["eos_token_id"]
    return DecodingRules(
        end_of_text=end_of_text[0] if isinstance(end_of_text, list) else end_of_text,
        suppress=tuple(generation_config.get("suppress_tokens") or ()),
        begin_suppress=tuple(generation_config.get("begin_suppress_tokens") or ()),
    )


def apply_rules(
    scores: jax.Array, rules: DecodingRules, tokens: jax.Array, step: jax.Array | int
) -> jax.Array:
    """Sets the scores of forbidden tokens to minus infinity.

    Args:
        scores: (B, V) float32, logits or log-probabilities of the next token.
        rules: what may be emitted.
        tokens: (B, T) int32, what each row has emitted so far.
        step: how many tokens that is; a Python 0 before the first one.

    Returns:
        (B, V) float32.
    """
    is_first = isinstance(step, int) and step == 0
    scores = scores + rules.banned(scores.shape[1], is_first)[None]
    if rules.timestamps is None:
        return scores
    return apply_timestamp_rules(scores, rules.timestamps, tokens, step)
