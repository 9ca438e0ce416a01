"""From tokens to words."""

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Languages whose words are not set apart by spaces: each character counts as a word.
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
PREPENDED = "\"'“¡¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
_REPLACEMENT = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class WordTokens(NamedTuple):
    """A word, and that it is tokens[first:last]."""

    word: str
    first: int
    last: int


def split_words(tokens: Sequence[int], decode: Decode, language: str | None) -> list[WordTokens]:
    """Cuts text tokens into words; each keeps its leading space and the punctuation beside it.

    Args:
        tokens: text tokens, without timestamps.
        decode: tokens to text; bytes that are no character become U+FFFD.
        language: code; None is English.

    Source: openai/whisper `tokenizer.py` and `timing.py`; transformers
    `_combine_tokens_into_words`.
    """
    pieces = _characters(tokens, decode)
    if language not in WITHOUT_SPACES:
        pieces = _spaced(pieces)
    return _with_punctuation(pieces)


def _characters(tokens: Sequence[int], decode: Decode) -> list[WordTokens]:
    """Cuts wherever the tokens so far are whole characters."""
    full = decode(tokens)
    pieces: list[WordTokens] = []
    first = offset = 0
    for last in range(1, len(tokens) + 1):
        text = decode(tokens[first:last])
        at = offset + text.find(_REPLACEMENT)
        # A replacement character that the full text has too will not become another one.
        if _REPLACEMENT not in text or at >= len(full) or full[at] == _REPLACEMENT:
            pieces.append(WordTokens(text, first, last))
            first, offset = last, offset + len(text)
    return pieces


def _spaced(pieces: list[WordTokens]) -> list[WordTokens]:
    words: list[WordTokens] = []
    for piece in pieces:
        starts_word = piece.word.startswith(" ") or piece.word.strip() in string.punctuation
        if starts_word or not words:
            words.append(piece)
        else:
            words[-1] = _joined(words[-1], piece)
    return words


def _with_punctuation(words: list[WordTokens]) -> list[WordTokens]:
    """Joins opening punctuation to the word behind it, closing punctuation to the one before."""
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
