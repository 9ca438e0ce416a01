"""Recordings cut at pauses, with a scripted model."""

import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from fastwhisper_jax.transcription.speech_segments import transcribe_pieces

long_form = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_long_form.py"))))
Reply, HOW = long_form.Reply, long_form.HOW


class CutRecording(long_form.FakeRecording):
    """Speech in turns of (frames, is spoken)."""

    def __init__(self, index, *turns):
        super().__init__(index, sum(frames for frames, _ in turns))
        levels = [np.full(frames, -1.0 if spoken else -10.0) for frames, spoken in turns]
        self.loudness = np.concatenate([*levels, []]).astype(np.float32)
        self.clips = []

    def clip(self, start_frame, end_frame):
        assert not self.closed
        self.clips.append((start_frame, end_frame))
        return np.full((2, 2), [self.index + 1, start_frame], np.float32)


def run(script, recordings, how=HOW, languages=()):
    fake = long_form.FakeModel(script, languages)
    language = None if languages else "en"
    numbered = ((each.index, each, language) for each in recordings)
    found = dict(transcribe_pieces(numbered, fake.as_model(), how))
    assert all(recording.closed for recording in recordings)
    return found, fake


def two_pieces(index=0):
    return CutRecording(index, (100, True), (200, False), (100, True))


def test_each_piece_is_a_segment_at_its_own_time():
    script = {(0, 0, 0.0): Reply((1,)), (0, 278, 0.0): Reply((2,))}
    recording = two_pieces()
    found, fake = run(script, [recording])
    assert recording.clips == [(0, 122), (278, 400)]
    assert long_form.times(found[0]) == [(0.0, 1.22, "w1"), (2.78, 4.0, "w2")]
    assert found[0].duration == 4.0
    assert len(fake.batches) == 1  # both in one


def test_pieces_of_several_recordings_share_batches_and_return_to_their_own():
    script = {(i, start, 0.0): Reply((10 * i + start,)) for i in range(3) for start in (0, 278)}
    script = {key: Reply((key[0] + 1, 9 if key[1] else 8)) for key in script}
    found, fake = run(script, [two_pieces(i) for i in range(3)])
    for index in range(3):
        assert found[index].text == f"w{index + 1} w8 w{index + 1} w9"
    assert len(fake.batches) == 3


def test_silence_has_no_segments_and_asks_nothing():
    found, fake = run({}, [CutRecording(0, (300, False)), CutRecording(1)])
    assert found[0].segments == found[1].segments == () and found[0].duration == 3.0
    assert not fake.batches


def test_the_language_is_detected_once_a_recording():
    script = {(i, start, 0.0): Reply((1,)) for i in range(2) for start in (0, 278)}
    found, fake = run(script, [two_pieces(0), two_pieces(1)], languages=(1, 0))
    assert [found[0].language, found[1].language] == ["es", "en"]
    spoken = [given[1] for index, _, _, given in fake.asked if index == 0]
    assert spoken == [long_form.ES] * 2


def test_all_seconds_are_counted():
    counted = []
    how = dataclasses.replace(HOW, on_progress=counted.append)
    script = {(0, 0, 0.0): Reply((1,)), (0, 278, 0.0): Reply((2,))}
    run(script, [two_pieces()], how)
    np.testing.assert_allclose(sum(counted), 4.0)


def test_leaving_early_closes_what_is_open():
    recordings = [two_pieces(i) for i in range(3)]
    script = {(i, start, 0.0): Reply((1,)) for i in range(3) for start in (0, 278)}
    numbered = ((each.index, each, "en") for each in recordings)
    how = dataclasses.replace(HOW, slots=3)
    fake = long_form.FakeModel(script)
    stream = transcribe_pieces(numbered, fake.as_model(), how)
    next(stream)
    stream.close()
    assert [recording.closed for recording in recordings[:2]] == [True, True]


def test_pieces_are_joined_as_the_language_is_written():
    script = {(0, 0, 0.0): Reply((1,)), (0, 278, 0.0): Reply((2,))}
    for is_translation, text in ((False, "w1w2"), (True, "w1 w2")):
        prompts = dataclasses.replace(
            HOW.prompts, languages={"zh": 52}, is_translation=is_translation
        )
        how = dataclasses.replace(HOW, prompts=prompts)
        found, _ = run(script, [two_pieces()], how, languages=[0])
        assert (found[0].language, found[0].text) == ("zh", text)
