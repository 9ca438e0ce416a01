"""The tokens that a window's prompt is made of."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastwhisper_jax.models.whisper.tokens import is_multilingual, prompt_tokens

if TYPE_CHECKING:
    from transformers import WhisperTokenizer


@dataclasses.dataclass(frozen=True)
class PromptFormat:
    """The tokens that a prompt is made of.

    Attributes:
        languages: code to token, in the order of detection; empty for English-only models.
        start: start of transcript.
        after_language: the task, and no timestamps where the model must write none.
        previous: start of previous text.
        most_previous: the most tokens of previous text in a prompt; 0 for none.
        timestamp_begin: the token of 0.00 s.
        end_of_text: the token that ends a text; all text tokens are below it.
        is_translation: whether the prompt asks for a translation into English.
    """

    languages: dict[str, int]
    start: int
    after_language: tuple[int, ...]
    previous: int
    most_previous: int
    timestamp_begin: int
    end_of_text: int
    is_translation: bool = False

    @property
    def no_speech(self) -> int:
        """The token whose probability says that nobody speaks."""
        # In every Whisper's vocabulary it is followed by <|notimestamps|>, and that by 0.00 s.
        return self.timestamp_begin - 2

    @property
    def start_length(self) -> int:
        """How many tokens `start_tokens` returns for a language of the model."""
        return 1 + bool(self.languages) + len(self.after_language)

    def start_tokens(self, language: str | None) -> tuple[int, ...]:
        """The tokens right before a window's text, without previous text."""
        spoken = (self.languages[language],) if language in self.languages else ()
        return (self.start, *spoken, *self.after_language)


def make_prompt_format(
    tokenizer: "WhisperTokenizer",
    generation_config: Mapping[str, Any],
    end_of_text: int,
    *,
    task: str,
    has_timestamps: bool,
    most_previous: int,
) -> PromptFormat:
    """Reads the tokens from a model's tokenizer.

    Args:
        tokenizer: of the model.
        generation_config: of the model; it may name the start of previous text.
        end_of_text: the token that ends a text.
        task: "transcribe" or "translate".
        has_timestamps: whether the model writes timestamps.
        most_previous: the most tokens of previous text in a prompt.

    Raises:
        InputError: the model does not know the task.
    """
    languages = _languages(tokenizer)
    start, *after = prompt_tokens(tokenizer, next(iter(languages), None), task)
    no_timestamps = after[-1]
    kept = after[:-1] if has_timestamps else after
    previous = generation_config.get("prev_sot_token_id")
    return PromptFormat(
        languages=languages,
        start=start,
        after_language=tuple(kept[bool(languages) :]),
        # In every Whisper's vocabulary: previous, no speech, no timestamps, 0.00 s.
        previous=no_timestamps - 2 if previous is None else previous,
        most_previous=most_previous,
        timestamp_begin=no_timestamps + 1,
        end_of_text=end_of_text,
        is_translation=task == "translate",
    )


def spoken_language(
    tokenizer: "WhisperTokenizer", languages: Mapping[str, int], language: str | None, task: str
) -> str | None:
    """The code of the language that the user gives.

    Returns:
        None where the language must be detected, or where the model knows only English.

    Raises:
        InputError: the model does not know the language or the task.
    """
    if languages and language is None:
        return None
    token = prompt_tokens(tokenizer, language, task)[1]
    return next((code for code, known in languages.items() if known == token), None)


def _languages(tokenizer: "WhisperTokenizer") -> dict[str, int]:
    """Code to token of the languages that the model knows; none for an English-only model."""
    if not is_multilingual(tokenizer):
        return {}
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    tokens: dict[str, Any] = {
        code: tokenizer.convert_tokens_to_ids(f"<|{code}|>") for code in LANGUAGES
    }
    return {
        code: int(token)
        for code, token in tokens.items()
        if token is not None and tokenizer.convert_ids_to_tokens(token) == f"<|{code}|>"
    }
