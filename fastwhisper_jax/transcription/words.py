"""Cuts text tokens into words."""

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Languages that are written without spaces between words: each character counts as a word.
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
PREPENDED = "\"'“¡¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
_REPLACEMENT = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class WordTokens(NamedTuple):
    """A word, which is made of tokens[first:last]."""

    word: str
    first: int
    last: int


def split_words(tokens: Sequence[int], decode: Decode, language: str | None) -> list[WordTokens]:
    """Cuts text tokens into words. Each keeps its leading space and the punctuation next to it.

    Args:
        tokens: text tokens, without timestamps.
        decode: tokens to text; bytes that are no character become U+FFFD.
        language: code of the language; None is English.

    Source: openai/whisper `tokenizer.py` and `timing.py`; transformers
    `_combine_tokens_into_words`.
    """
    parts = _whole_characters(tokens, decode)
    if language not in WITHOUT_SPACES:
        parts = _joined_to_words(parts)
    return _with_punctuation(parts)


def _whole_characters(tokens: Sequence[int], decode: Decode) -> list[WordTokens]:
    """The smallest groups of tokens that decode to whole characters."""
    full = decode(tokens)
    parts: list[WordTokens] = []
    first = offset = 0
    for last in range(1, len(tokens) + 1):
        text = decode(tokens[first:last])
        at = offset + text.find(_REPLACEMENT)
        # A replacement character that is also in the full text stays one, whatever follows.
        if _REPLACEMENT not in text or at >= len(full) or full[at] == _REPLACEMENT:
            parts.append(WordTokens(text, first, last))
            first, offset = last, offset + len(text)
    return parts


def _joined_to_words(parts: list[WordTokens]) -> list[WordTokens]:
    """Joins parts up to the next one that starts with a space or is punctuation."""
    words: list[WordTokens] = []
    for part in parts:
        starts_word = part.word.startswith(" ") or part.word.strip() in string.punctuation
        if starts_word or not words:
            words.append(part)
        else:
            words[-1] = _joined(words[-1], part)
    return words


def _with_punctuation(words: list[WordTokens]) -> list[WordTokens]:
    """Joins opening punctuation to the word after it, closing punctuation to the one before."""
    opened: list[WordTokens] = []
    for word in reversed(words):
        is_opening = word.word.startswith(" ") and word.word.strip() in PREPENDED
        if is_opening and opened:
            opened[-1] = _joined(word, opened[-1])
        else:
            opened.append(word)
    closed: list[WordTokens] = []
    for word in reversed(opened):
        if closed and not closed[-1].word.endswith(" ") and word.word in APPENDED:
            closed[-1] = _joined(closed[-1], word)
        else:
            closed.append(word)
    return closed


def _joined(left: WordTokens, right: WordTokens) -> WordTokens:
    return WordTokens(left.word + right.word, left.first, right.last)
