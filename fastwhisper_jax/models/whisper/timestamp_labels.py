"""Labels that say when each utterance is spoken, as Whisper writes long recordings."""

from collections.abc import Sequence

from fastwhisper_jax.audio.constants import SECONDS_PER_TIMESTAMP
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.tokens import UtteranceTokens

# The field of generation_config.json that says whether a student's labels held timestamps. Other
# programs ignore it. A model without the field writes timestamps, as OpenAI's models do.
TRAINED_WITH_TIMESTAMPS = "trained_with_timestamps"


def timestamped(utterances: Sequence[UtteranceTokens], seconds: Sequence[float]) -> UtteranceTokens:
    """Prompt and label of one row of utterances, with the times of each.

    The prompt loses its last token, <|notimestamps|>, which the timestamps follow in every
    Whisper's vocabulary. The label is <|start|> text <|end|> for each utterance with text, rounded
    to 0.02 s, or <|0.00|> alone where nobody speaks, so that a silent window ends there.

    Args:
        utterances: tokens without times, of one prompt.
        seconds: length of each utterance's audio; they are laid back to back.
    """
    *prompt, no_timestamps = utterances[0].prompt
    first = no_timestamps + 1
    label: list[int] = []
    start = 0.0
    for tokens, length in zip(utterances, seconds, strict=True):
        end = start + length
        if tokens.label:
            label += [first + _steps(start), *tokens.label, first + _steps(end)]
        start = end
    return UtteranceTokens(tuple(prompt), tuple(label or [first]))


def timestamped_length(prompt_tokens: int, label_tokens: Sequence[int]) -> int:
    """How many tokens prompt and label of `timestamped` are, for utterances of so many tokens."""
    return prompt_tokens - 1 + max(1, sum(count + 2 for count in label_tokens if count))


def check_timestamps(prompt: Sequence[int], n_vocab: int, context_seconds: float) -> None:
    """Checks that a vocabulary has the timestamps of a window.

    Args:
        prompt: of any utterance, without times.
        n_vocab: V, of the model.
        context_seconds: length of its window.

    Raises:
        InputError: it has not.
    """
    last = prompt[-1] + 1 + _steps(context_seconds)
    if last >= n_vocab:
        raise InputError(
            f"data.timestamp_probability is above 0, but the vocabulary of {n_vocab} tokens has "
            f"not the timestamps of {context_seconds:g} s, which end with token {last}; set it "
            "to 0, or choose a teacher with timestamps, as all of openai's"
        )


def _steps(seconds: float) -> int:
    return round(seconds / SECONDS_PER_TIMESTAMP)
