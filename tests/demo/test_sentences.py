"""Sentences are many, the same on every machine, and never shared by training and test."""

import pytest

from fastwhisper_jax.demo.sentences import sentences, vocabulary


def test_no_seed_gives_a_test_sentence_for_training():
    trained = {text for seed in range(3) for text in sentences("train", 2000, seed)}
    tested = {text for seed in range(3) for text in sentences("test", 300, seed)}
    assert len(trained) > 4500 and len(tested) > 700
    assert not trained & tested


@pytest.mark.parametrize("part", ["train", "test", "words"])
def test_sentences_are_different_and_the_same_for_a_seed(part):
    first = sentences(part, 200, seed=5)
    assert len(set(first)) == 200
    assert first == sentences(part, 200, seed=5)
    assert first[:50] == sentences(part, 50, seed=5)
    assert first != sentences(part, 200, seed=6)


def test_first_sentences_of_a_seed_are_these_on_every_machine():
    assert sentences("train", 3, seed=1) == [
        "when does the train to Boston leave",
        "the plumber is coming on Tuesday at half past five",
        "remind me to walk the dog at quarter to three",
    ]


def test_every_word_is_of_the_vocabulary_and_most_of_it_occurs():
    said = {word.lower() for text in sentences("train", 3000, 0) for word in text.split()}
    assert said | {"oh"} == vocabulary() and 150 <= len(said) <= 250


def test_words_in_random_order_are_of_the_same_vocabulary():
    said = [text.split() for text in sentences("words", 500, 0)]
    assert {word for words in said for word in words} <= vocabulary()
    assert {len(words) for words in said} == {1, 2, 3, 4}
