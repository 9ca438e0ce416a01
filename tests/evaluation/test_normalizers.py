import importlib.resources
import json

import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.normalizers import NORMALIZERS, normalizer, without_diacritics

TEXTS = [
    "That agent is already logged on. Please enter your agent number followed by the pound key.",
    "Mr. O'Brien can't recognise the colour of Dr. Smith's aeroplane, y'all!",
    "It's twenty-two thousand dollars and 50 cents, or $3.50; one oh one, 1,234,567 and 20%.",
    "[music] Um, hmm (laughs) I'm gonna go <noise> at the 21st century's 1960s.",
    "Presione uno, ¿señor? El modo mudo ha sido desactivado: año, Øre, straße, ½.",
    "naïve café — “quoted” … 東京タワー",
    "",
    "   ",
]


@pytest.fixture(scope="module")
def whisper_normalizers():
    transformers = pytest.importorskip("transformers.models.whisper.english_normalizer")
    spelling = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
    return (
        transformers.EnglishTextNormalizer(json.loads(spelling.read_text())),
        transformers.BasicTextNormalizer(),
        transformers.BasicTextNormalizer(remove_diacritics=True),
    )


@pytest.mark.parametrize("text", TEXTS)
def test_english_and_basic_agree_with_transformers(whisper_normalizers, text):
    english, basic, stripping = whisper_normalizers
    assert normalizer("english")(text) == english(text).strip()
    assert normalizer("basic")(text) == basic(text).strip()
    assert normalizer("basic", strip_diacritics=True)(text) == stripping(text).strip()


def test_english_uses_the_spelling_table():
    assert normalizer("english")("The colour grey, realised") == "the color gray realized"


@pytest.mark.parametrize("name", NORMALIZERS)
def test_stripping_makes_accents_irrelevant(name):
    stripped = normalizer(name, strip_diacritics=True)
    assert stripped("menú número tres años") == stripped("menu numero tres anos")


@pytest.mark.parametrize("name", ["basic", "digits", "none"])
def test_accents_count_unless_stripped(name):
    kept = normalizer(name)
    assert kept("menú") != kept("menu")


def test_none_keeps_case_and_punctuation():
    assert normalizer("none")("  Hello, World! ") == "Hello, World!"


def test_without_diacritics_keeps_other_letters():
    assert without_diacritics("Łódź, 東京, ½!") == "Lodz, 東京, ½!"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="'englsh' does not exist; use one of english, basic"):
        normalizer("englsh")
