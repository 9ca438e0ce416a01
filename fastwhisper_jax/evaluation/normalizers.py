"""Text normalisers: what is forgiven before words are counted as right or wrong."""

import unicodedata
from collections.abc import Callable

from whisper_normalizer.basic import ADDITIONAL_DIACRITICS, BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.digits import spell_digits

Normalizer = Callable[[str], str]

NORMALIZERS = ("english", "basic", "digits", "none")


def normalizer(name: str, strip_diacritics: bool = False) -> Normalizer:
    """Returns the function that references and hypotheses both go through before scoring.

    * `english`: Whisper's English normaliser with its British-American spelling table:
      contractions opened, numbers as numerals, fillers and bracketed text dropped. It always
      strips diacritics.
    * `basic`: Whisper's normaliser for every other language: lower case, symbols to spaces,
      bracketed text dropped.
    * `digits`: spoken digits and numerals to one digit a word, see `digits.spell_digits`; a word
      error rate of such texts is a digit error rate.
    * `none`: only white space around the text is dropped.

    Args:
        name: one of `NORMALIZERS`.
        strip_diacritics: accents and other combining marks are dropped as well. Wrong for scripts
            whose vowels are combining marks (Devanagari, Thai).

    Returns:
        A pure function from text to normalised text, without white space at its ends.

    Raises:
        InputError: `name` is no normaliser.

    Source:
        whisper/normalizers of openai/whisper; tests hold `english` and `basic` against
        transformers' `EnglishTextNormalizer` and `BasicTextNormalizer`.
    """
    if name == "english":
        return _stripped(EnglishTextNormalizer())
    if name == "basic":
        return _stripped(BasicTextNormalizer(remove_diacritics=strip_diacritics))
    if name == "digits":
        if strip_diacritics:
            return lambda text: spell_digits(without_diacritics(text))
        return spell_digits
    if name == "none":
        return _stripped(without_diacritics if strip_diacritics else str)
    raise InputError(f"normalizer {name!r} does not exist; use one of {', '.join(NORMALIZERS)}")


def without_diacritics(text: str) -> str:
    """Drops combining marks and opens the letters that have no decomposition ("ø" to "o").

    >>> without_diacritics("Año, más, Øre, straße")
    'Ano, mas, Ore, strasse'
    """
    decomposed = unicodedata.normalize("NFD", text)
    kept = (ADDITIONAL_DIACRITICS.get(c, c) for c in decomposed if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", "".join(kept))


def _stripped(normalize: Callable[[str], str]) -> Normalizer:
    return lambda text: normalize(text).strip()
