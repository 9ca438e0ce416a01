"""Recordings cut at pauses, with a scripted model."""

import dataclasses

import numpy as np
from support.scripted_model import ES, SETTINGS, FakeModel, FakeRecording, Reply, times

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.transcription.speech_segments import transcribe_speech_segments


class CutRecording(FakeRecording):
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


def run(script, recordings, settings=SETTINGS, languages=()):
    fake = FakeModel(script, languages)
    language = None if languages else "en"
    numbered = ((each.index, each, language) for each in recordings)
    transcripts = dict(transcribe_speech_segments(numbered, fake.as_model(), settings))
    assert all(recording.closed for recording in recordings)
    return transcripts, fake


def two_speech_segments(index=0):
    return CutRecording(index, (100, True), (200, False), (100, True))


def test_each_speech_segment_becomes_a_segment_with_its_own_times():
    script = {(0, 0, 0.0): Reply((1,)), (0, 278, 0.0): Reply((2,))}
    recording = two_speech_segments()
    transcripts, fake = run(script, [recording])
    assert recording.clips == [(0, 122), (278, 400)]
    assert times(transcripts[0]) == [(0.0, 1.22, "w1"), (2.78, 4.0, "w2")]
    assert transcripts[0].duration == 4.0
    assert len(fake.batches) == 1  # both were decoded in one batch


def test_speech_segments_of_several_recordings_share_batches_and_return_to_their_own():
    script = {(i, start, 0.0): Reply((10 * i + start,)) for i in range(3) for start in (0, 278)}
    script = {key: Reply((key[0] + 1, 9 if key[1] else 8)) for key in script}
    transcripts, fake = run(script, [two_speech_segments(i) for i in range(3)])
    for index in range(3):
        assert transcripts[index].text == f"w{index + 1} w8 w{index + 1} w9"
    assert len(fake.batches) == 3


def test_speech_segments_of_one_length_share_a_window_and_return_in_order_of_time():
    """A short one and a long one by turns."""
    pause = (200, False)
    turns = [(100, True), pause, (500, True), pause, (100, True), pause, (500, True)]
    recording = CutRecording(0, *turns)
    begins = (0, 278, 978, 1278)
    script = {(0, start, 0.0): Reply((index + 1,)) for index, start in enumerate(begins)}
    fake, heard = FakeModel(script), []

    def encode(batch):
        heard.append(sorted(int(row[0, 1]) for row in batch if row[0, 0]))
        return batch

    model = dataclasses.replace(fake.as_model(), encode=encode)
    settings = dataclasses.replace(SETTINGS, windows=Windows((4.0, 30.0)), slots=2)
    numbered = iter([(0, recording, "en")])
    transcripts = dict(transcribe_speech_segments(numbered, model, settings))
    assert heard == [[278, 1278], [0, 978]]
    assert transcripts[0].text == "w1 w2 w3 w4"
    starts = [segment.start for segment in transcripts[0].segments]
    assert starts == [0.0, 2.78, 9.78, 12.78]


def test_silence_has_no_segments_and_asks_nothing():
    transcripts, fake = run({}, [CutRecording(0, (300, False)), CutRecording(1)])
    assert (
        transcripts[0].segments == transcripts[1].segments == () and transcripts[0].duration == 3.0
    )
    assert not fake.batches


def test_the_language_is_detected_once_a_recording():
    script = {(i, start, 0.0): Reply((1,)) for i in range(2) for start in (0, 278)}
    transcripts, fake = run(
        script, [two_speech_segments(0), two_speech_segments(1)], languages=(1, 0)
    )
    assert [transcripts[0].language, transcripts[1].language] == ["es", "en"]
    spoken = [given[1] for index, _, _, given in fake.asked if index == 0]
    assert spoken == [ES] * 2


def test_all_seconds_are_counted():
    counted = []
    settings = dataclasses.replace(SETTINGS, on_progress=counted.append)
    script = {(0, 0, 0.0): Reply((1,)), (0, 278, 0.0): Reply((2,))}
    run(script, [two_speech_segments()], settings)
    np.testing.assert_allclose(sum(counted), 4.0)


def test_leaving_early_closes_what_is_open():
    recordings = [two_speech_segments(i) for i in range(3)]
    script = {(i, start, 0.0): Reply((1,)) for i in range(3) for start in (0, 278)}
    numbered = ((each.index, each, "en") for each in recordings)
    settings = dataclasses.replace(SETTINGS, slots=3)
    fake = FakeModel(script)
    stream = transcribe_speech_segments(numbered, fake.as_model(), settings)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert [recording.closed for recording in recordings[:2]] == [True, True]


def test_speech_segments_are_joined_as_the_language_is_written():
    script = {(0, 0, 0.0): Reply((1,)), (0, 278, 0.0): Reply((2,))}
    for is_translation, text in ((False, "w1w2"), (True, "w1 w2")):
        prompt_format = dataclasses.replace(
            SETTINGS.prompt_format, languages={"zh": 52}, is_translation=is_translation
        )
        settings = dataclasses.replace(SETTINGS, prompt_format=prompt_format)
        transcripts, _ = run(script, [two_speech_segments()], settings, languages=[0])
        assert (transcripts[0].language, transcripts[0].text) == ("zh", text)
