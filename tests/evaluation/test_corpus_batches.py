import numpy as np
import pytest
import soundfile
from support import tiny_run as tiny

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.batching import UtteranceSize
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens
from fastwhisper_jax.data.loader import audio_inputs
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
    batches = list(evaluation_batches(corpus, load_inputs, windows, tiny.make_mesh_of_one(), 2))
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


def test_an_utterance_is_heard_in_the_shortest_window_that_holds_it(tmp_path):
    seconds = (0.9, 0.2, 0.5, 0.3, 0.7, 0.1)
    utterances = []
    for index, length in enumerate(seconds):
        path = str(tmp_path / f"{index}.wav")
        soundfile.write(path, np.full(round(16_000 * length), 0.1), 16_000)
        utterances.append(Utterance(f"u{index}", path, "one", duration=length))
    tokens = (UtteranceTokens((1, 2), (3,)),) * len(seconds)
    sizes = tuple(UtteranceSize(length, 2, 1) for length in seconds)
    corpus = Corpus(tuple(utterances), tokens, sizes, "")
    windows = Windows((0.4, 1.0), margin_seconds=0.1)
    mesh = tiny.make_mesh_of_one()
    batches = [*evaluation_batches(corpus, audio_inputs, windows, mesh, batch_size=2)]
    heard = [(batch.inputs["audio"].shape, [*batch.ids]) for batch in batches]
    assert heard == [
        ((2, 16_000), ["u0", "u4"]),
        ((2, 16_000), ["u2"]),
        ((2, 6_400), ["u3", "u1"]),
        ((2, 6_400), ["u5"]),
    ]
    assert all(batch.inputs.keys() == {"audio"} for batch in batches)
