import pytest

from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.evaluation.corpus_batches import default_normalizer


@pytest.mark.parametrize(
    ("languages", "task", "normalizer"),
    [
        (("en", "en"), "transcribe", "english"),
        (("en", "es"), "transcribe", "basic"),
        (("en", "es"), "translate", "english"),
    ],
)
def test_english_texts_are_scored_with_the_english_normaliser(languages, task, normalizer):
    utterances = tuple(Utterance(each, "a.wav", "one", each) for each in languages)
    assert default_normalizer(Corpus(utterances, (), (), ""), task) == normalizer
