"""Writes spoken digits and numerals as one digit a word, so that a word error is a digit error."""

import re
import unicodedata

ONES = {
    word: str(value)
    for value, word in enumerate("zero one two three four five six seven eight nine".split())
}
DIGITS = {**ONES, "oh": "0", "o": "0", **{str(digit): str(digit) for digit in range(10)}}
TEENS = {
    word: str(value)
    for value, word in enumerate(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(),
        start=10,
    )
}
TENS = {
    word: str(value)
    for value, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2
    )
}
REPEATS = {"double": 2, "triple": 3}


def spell_digits(text: str) -> str:
    """Writes every number as its digits, one a word, and all other words in lower case.

    * Numerals are split into digits: "1-800", "1,800" and "1 800" are "1 8 0 0". Symbols such as
      the decimal point are dropped, and so is the ending of "21st".
    * Spoken digits are zero to nine; "oh" and "o" always mean zero.
    * Spoken numbers below one million: "forty two" and "forty-two" are "4 2", "nineteen" is
      "1 9", "one hundred and five" is "1 0 5", "two thousand six" is "2 0 0 6".
    * Digits that are read one by one stay separate: "one two" is "1 2". So a single digit belongs
      to the hundred or thousand before it only if no number follows: "eight hundred five five" is
      "8 0 0 5 5".
    * "double five" is "5 5", "triple zero" is "0 0 0".

    >>> spell_digits("Call 1-800, double five, forty-two.")
    'call 1 8 0 0 5 5 4 2'

    Args:
        text: a transcript in English, or in any language if its numbers are numerals.

    Returns:
        The words, joined by single spaces.
    """
    text = unicodedata.normalize("NFKC", text.lower())
    text = re.sub(r"[<\[][^>\]]*[>\]]|\([^)]*\)", " ", text)
    text = re.sub(r"['’]", "", text)
    text = re.sub(r"(?<=\d)(st|nd|rd|th)\b", "", text)
    words = "".join(map(_separated, text)).split()
    spelled: list[str] = []
    position = 0
    while position < len(words):
        digits, position = _number(words, position)
        spelled += digits
    return " ".join(spelled)


def _number(words: list[str], start: int) -> tuple[list[str], int]:
    """Reads the longest number at `start`: its digits, and the index after it.

    A word that is no number is returned as it is.
    """
    word = words[start]
    following = words[start + 1] if start + 1 < len(words) else ""
    if word in REPEATS and following in DIGITS:
        return [DIGITS[following]] * REPEATS[word], start + 2
    value, position = _below_hundred(words, start)
    if value is None:
        return [word], start + 1
    for multiplier, zeros in (("hundred", 2), ("thousand", 3)):
        if value != "0" and position < len(words) and words[position] == multiplier:
            rest, position = _remainder(words, position + 1, zeros)
            value += rest.zfill(zeros)
    return list(value), position


def _below_hundred(words: list[str], start: int) -> tuple[str | None, int]:
    """Reads "seven", "nineteen", "forty" or "forty two"; None if there is no number."""
    word = words[start] if start < len(words) else ""
    following = words[start + 1] if start + 1 < len(words) else ""
    if word in TENS:
        if ONES.get(following, "0") != "0":
            return TENS[word] + ONES[following], start + 2
        return TENS[word] + "0", start + 1
    return TEENS.get(word, DIGITS.get(word)), start + 1


def _remainder(words: list[str], start: int, zeros: int) -> tuple[str, int]:
    """Reads what belongs to a hundred or thousand ("and five"); "" if nothing does."""
    has_and = start < len(words) and words[start] == "and"
    value, position = _below_hundred(words, start + has_and)
    if value is None:
        return "", start
    follower = words[position] if position < len(words) else ""
    if zeros == 3 and follower == "hundred":
        rest, position = _remainder(words, position + 1, 2)
        value += rest.zfill(2)
        return (value, position) if len(value) <= zeros else ("", start)
    is_digit_string = len(value) == 1 and (follower in DIGITS or follower in TENS | TEENS)
    return ("", start) if value == "0" or is_digit_string else (value, position)


def _separated(character: str) -> str:
    """Writes a digit of any script as 0 to 9 between spaces, and symbols as a space."""
    if character.isdigit():
        return f" {unicodedata.digit(character)} "
    return " " if unicodedata.category(character)[0] in "PSZC" else character
