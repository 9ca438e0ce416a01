"""Labels that say when each utterance is spoken, as Whisper writes long recordings."""

from collections.abc import Sequence

from fastwhisper_jax.audio.constants import SECONDS_PER_TIMESTAMP
from fastwhisper_jax.errors import InputError

# The field of generation_config.json that says whether a student's labels held timestamps. Other
# programs ignore it. A model without the field writes timestamps, as OpenAI's models do.
TRAINED_WITH_TIMESTAMPS = "trained_with_timestamps"


def timestamped(
    prompt: Sequence[int], labels: Sequence[Sequence[int]], seconds: Sequence[float]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Adds timestamps to the prompt and the label of one row of joined utterances.

    The prompt loses its last token, <|notimestamps|>. The timestamp tokens follow that token in
    every Whisper vocabulary. The label becomes <|start|> text <|end|> for each utterance that has
    text. A row without any text gets the label <|0.00|>, so that a silent window ends at once.

    Args:
        prompt: P ids, the same for all utterances of the row.
        labels: the label ids of each utterance, without timestamps.
        seconds: length of each utterance's audio; utterances follow each other without a gap.

    Returns:
        Prompt and label ids. Times are rounded to 0.02 s.
    """
    *kept, no_timestamps = prompt
    first = no_timestamps + 1
    label: list[int] = []
    start = 0.0
    for text, length in zip(labels, seconds, strict=True):
        end = start + length
        if text:
            label += [first + _steps(start), *text, first + _steps(end)]
        start = end
    return tuple(kept), tuple(label or [first])


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
