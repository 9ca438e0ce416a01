import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.error_rates import ErrorRates, error_rates
from fastwhisper_jax.evaluation.normalizers import normalizer


def test_counts_are_summed_over_the_corpus_before_dividing():
    references = ["a b c d", "e"]
    hypotheses = ["a x c", "e f g"]  # one substitution, one deletion; two insertions
    rates = error_rates(references, hypotheses, str)
    assert rates == ErrorRates(
        wer=4 / 5,
        # "a b c d" to "a x c": 3 characters; "e" to "e f g": 4; of 7 + 1.
        cer=7 / 8,
        substitutions=1,
        deletions=1,
        insertions=2,
        reference_words=5,
    )


def test_both_sides_are_normalised():
    rates = error_rates(["The colour, grey."], ["the color  gray"], normalizer("english"))
    assert rates.wer == 0 and rates.cer == 0


def test_words_made_up_for_an_empty_reference_are_insertions():
    rates = error_rates(["[music]", "one word"], ["thank you", "one word"], normalizer("basic"))
    assert (rates.insertions, rates.reference_words, rates.wer) == (2, 2, 1.0)


def test_an_empty_hypothesis_is_all_deletions():
    rates = error_rates(["one two"], [""], str)
    assert (rates.deletions, rates.wer, rates.cer) == (2, 1.0, 1.0)


def test_digits_normaliser_gives_the_digit_error_rate():
    rates = error_rates(["two six zero one eight"], ["2-6-0-1-9."], normalizer("digits"))
    assert (rates.wer, rates.reference_words) == (1 / 5, 5)


def test_references_without_any_word_are_an_error():
    with pytest.raises(InputError, match="none of 2 references has a word left"):
        error_rates(["[noise]", ""], ["a", "b"], normalizer("basic"))


def test_lengths_must_agree():
    with pytest.raises(InputError, match="2 references against 1 hypotheses"):
        error_rates(["a", "b"], ["a"], str)
