"""The recordings of a corpus match its manifest."""

import soundfile

from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.demo.corpus import UNSEEN_VOICES, CorpusSpec, write_corpus
from fastwhisper_jax.demo.sentences import sentences


def test_recordings_are_as_the_manifest_says(speaks, tmp_path):
    done = []
    spec = CorpusSpec("test-unseen", "test", UNSEEN_VOICES, 9, seed=3)
    path = write_corpus(spec, tmp_path, done.append)
    utterances = read_manifest(path)
    assert path == tmp_path / "test-unseen.jsonl" and done == [1] * 9
    assert [utterance.text for utterance in utterances] == sentences("test", 9, seed=3)
    for utterance in utterances:
        info = soundfile.info(utterance.audio)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert abs(info.duration - utterance.duration) < 1e-3 and utterance.language == "en"
