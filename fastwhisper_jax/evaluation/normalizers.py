"""Text normalisers: they remove differences that do not count as errors."""

import unicodedata
from collections.abc import Callable

from whisper_normalizer.basic import ADDITIONAL_DIACRITICS, BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.digits import spell_digits

Normalizer = Callable[[str], str]

NORMALIZERS = ("english", "basic", "digits", "none")


def normalizer(name: str, strip_diacritics: bool = False) -> Normalizer:
    """Returns the function that is applied to references and hypotheses before scoring.

    * `english`: Whisper's English normaliser with its British-American spelling table. It expands
      contractions, writes numbers as numerals, and drops fillers and bracketed text. It always
      strips diacritics.
    * `basic`: Whisper's normaliser for all other languages. It writes lower case, replaces symbols
      by spaces, and drops bracketed text.
    * `digits`: writes spoken digits and numerals as one digit a word, see `digits.spell_digits`.
      The word error rate of such texts is a digit error rate.
    * `none`: drops only the white space around the text.

    Args:
        name: one of `NORMALIZERS`.
        strip_diacritics: also drop accents and other combining marks. This is wrong for scripts
            whose vowels are combining marks (Devanagari, Thai).

    Returns:
        A pure function from text to normalised text without white space at its ends.

    Raises:
        InputError: `name` is no normaliser.

    Source:
        whisper/normalizers of openai/whisper. Tests compare `english` and `basic` with
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
    """Drops combining marks, and replaces letters that have no decomposition ("ø" by "o").

    >>> without_diacritics("Año, más, Øre, straße")
    'Ano, mas, Ore, strasse'
    """
    decomposed = unicodedata.normalize("NFD", text)
    kept = (ADDITIONAL_DIACRITICS.get(c, c) for c in decomposed if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", "".join(kept))


def _stripped(normalize: Callable[[str], str]) -> Normalizer:
    return lambda text: normalize(text).strip()
