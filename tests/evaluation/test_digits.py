import pytest

from fastwhisper_jax.evaluation.digits import spell_digits


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("two six zero one eight", "2 6 0 1 8"),
        ("Nine, nine, six.", "9 9 6"),
        ("oh five O", "0 5 0"),
        ("0123456789", "0 1 2 3 4 5 6 7 8 9"),
        ("1-800", "1 8 0 0"),
        ("1 800", "1 8 0 0"),
        ("1,800", "1 8 0 0"),
        ("9.9.6", "9 9 6"),
        ("42", "4 2"),
        ("forty two", "4 2"),
        ("Forty-two", "4 2"),
        ("forty", "4 0"),
        ("nineteen", "1 9"),
        ("nineteen eighty four", "1 9 8 4"),
        ("twenty oh five", "2 0 0 5"),
        ("double five", "5 5"),
        ("triple zero seven", "0 0 0 7"),
        ("double trouble", "double trouble"),
        ("one hundred", "1 0 0"),
        ("eight hundred and five", "8 0 5"),
        ("eight hundred five five five", "8 0 0 5 5 5"),
        ("one eight hundred forty two", "1 8 4 2"),
        ("eighteen hundred", "1 8 0 0"),
        ("two thousand six", "2 0 0 6"),
        ("nine thousand nine hundred and ninety nine", "9 9 9 9"),
        ("nine hundred thousand five hundred", "9 0 0 5 0 0"),
        ("a hundred men and one", "a hundred men and 1"),
        ("the 21st", "the 2 1"),
        ("press 3 (beep) or pound", "press 3 or pound"),
        ("٣ ² años", "3 2 años"),
        ("", ""),
    ],
)
def test_every_number_becomes_one_digit_a_word(text, digits):
    assert spell_digits(text) == digits


def test_spelling_twice_changes_nothing():
    once = spell_digits("Call 1-800, double five, forty-two thousand and six: 19th!")
    assert spell_digits(once) == once


@pytest.mark.parametrize("number", [0, 7, 10, 19, 20, 42, 100, 105, 110, 999, 1000, 2006, 12_345])
def test_spoken_numbers_equal_their_numerals(number):
    assert spell_digits(_spoken(number)) == spell_digits(str(number))


def _spoken(number: int) -> str:
    ones = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    ones = [*ones.split(), *"fifteen sixteen seventeen eighteen nineteen".split()]
    tens = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
    if number < 20:
        return ones[number]
    for unit, name in ((1000, "thousand"), (100, "hundred")):
        if number >= unit:
            rest = number % unit
            return f"{_spoken(number // unit)} {name}" + (f" {_spoken(rest)}" if rest else "")
    return tens[number // 10] + (f" {ones[number % 10]}" if number % 10 else "")
