import numpy as np
import pytest
from support.tiny_run import make_mesh_of_one

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.batching import UtteranceSize
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.evaluation.corpus_batches import default_normalizer, evaluation_batches


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


def test_the_longest_come_first_and_a_batch_is_of_one_window():
    seconds = (1.0, 4.0, 2.0, 5.0, 3.0)
    corpus = Corpus(
        tuple(Utterance(f"u{s:g}", "a.wav", f"text {s:g}", "en", duration=s) for s in seconds),
        tuple(UtteranceTokens((index, 9), (8,)) for index in range(5)),
        tuple(UtteranceSize(s, 2, 1) for s in seconds),
        "",
    )

    def load_inputs(rows, layout):
        return {"audio": np.array([[row[0].duration if row else 0.0] for row in rows], np.float32)}

    windows = Windows((2.5, 30.0), margin_seconds=0.4)
    batches = list(evaluation_batches(corpus, load_inputs, windows, make_mesh_of_one(), 2))
    assert [list(batch.indices) for batch in batches] == [[3, 1], [4], [2, 0]]
    for batch in batches:
        count = len(batch.indices)
        chosen = [seconds[index] for index in batch.indices]
        assert batch.ids == [f"u{s:g}" for s in chosen]
        assert batch.references == [f"text {s:g}" for s in chosen]
        assert batch.durations_seconds == chosen
        assert np.asarray(batch.inputs["audio"])[:count, 0].tolist() == chosen
        assert np.asarray(batch.prompt)[:count, 0].tolist() == list(batch.indices)
        assert len(batch.prompt) == 2
