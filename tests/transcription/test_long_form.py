"""The long-form loop with a scripted model: where windows start, and what prompts hold."""

import dataclasses

import numpy as np
import pytest
from support.scripted_model import (
    EN,
    ES,
    FORMAT,
    PREVIOUS,
    SETTINGS,
    START,
    TASK,
    FakeModel,
    FakeRecording,
    Reply,
    at,
    times,
)

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.transcription.long_form import transcribe_recordings


def run(script, lengths, settings=SETTINGS, languages=()):
    """Languages are detected, those of the script, where there are any; else all is English."""
    recordings = [FakeRecording(i, frames) for i, frames in enumerate(lengths)]
    fake = FakeModel(script, languages)
    language = None if languages else "en"
    numbered = ((index, recording, language) for index, recording in enumerate(recordings))
    transcripts = list(transcribe_recordings(numbered, fake.as_model(), settings))
    assert all(recording.closed for recording in recordings)
    return dict(transcripts), fake, [index for index, _ in transcripts]


def test_windows_start_at_the_last_pair_of_timestamps():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, at(10), at(12), 2, at(20), at(20), 3)),
        (0, 2000, 0.0): Reply((at(0.5), 3, at(4), at(4))),
        (0, 2400, 0.0): Reply((at(0), 4, at(3))),
    }
    transcripts, fake, _ = run(script, [4000])
    assert times(transcripts[0]) == [
        (0.0, 10.0, "w1"),
        (12.0, 20.0, "w2"),
        (20.5, 24.0, "w3"),
        (24.0, 27.0, "w4"),
    ]
    assert [start for _, start, *_ in fake.asked] == [0, 2000, 2400]
    assert transcripts[0].duration == 40.0 and transcripts[0].language == "en"


def test_the_prompt_holds_the_latest_text_before_it():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, 2, 3, at(10), at(10), 4, at(12), at(12))),
        (0, 1200, 0.0): Reply((at(0), 5, at(1))),
    }
    _, fake, _ = run(script, [4200])
    assert fake.asked[0][-1] == [START, EN, TASK]
    latest = [2, 3, at(10), at(10), 4, at(12)]
    assert fake.asked[1][-1] == [PREVIOUS, *latest, START, EN, TASK]
    # One narrow and one wide prompt: nothing else is compiled.
    assert [width for _, width in fake.batches] == [3, 3 + 1 + 6]


def test_no_previous_text_is_shown_where_it_is_not_wanted():
    settings = dataclasses.replace(
        SETTINGS, prompt_format=dataclasses.replace(FORMAT, most_previous=0)
    )
    script = {(0, 0, 0.0): Reply((at(0), 1, at(9))), (0, 3000, 0.0): Reply((at(0), 2, at(1)))}
    _, fake, _ = run(script, [3100], settings)
    assert [given for *_, given in fake.asked] == [[START, EN, TASK]] * 2


def test_unsure_and_repetitive_windows_are_decoded_again():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, at(9)), avg_logprob=-1.5),
        (0, 0, 0.2): Reply((at(0), *[7] * 11), avg_logprob=-0.1),
        (0, 0, 0.4): Reply((at(0), 2, at(9))),
    }
    settings = dataclasses.replace(
        SETTINGS, decode=lambda tokens: "".join(f"word {t} " for t in tokens)
    )
    transcripts, fake, _ = run(script, [3000], settings)
    assert [temperature for _, _, temperature, _ in fake.asked] == [0.0, 0.2, 0.4]
    assert [s.text for s in transcripts[0].segments] == ["word 2"]
    assert transcripts[0].segments[0].temperature == 0.4
    assert len(set(fake.seeds.values())) == 3


def test_the_last_temperature_is_taken_as_it_is():
    script = {
        (0, 0, t): Reply((at(0), 1, at(9)), avg_logprob=-2.0)
        for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    }
    transcripts, _, _ = run(script, [3000])
    assert transcripts[0].segments[0].temperature == 1.0


def test_text_of_a_high_temperature_is_not_shown_to_the_next_window():
    bad = Reply((at(0), 1, at(9)), avg_logprob=-2.0)
    script = {(0, 0, 0.0): bad, (0, 0, 0.2): bad, (0, 0, 0.4): bad}
    script |= {(0, 0, 0.6): Reply((at(0), 1, at(9))), (0, 3000, 0.0): Reply((at(0), 2, at(1)))}
    _, fake, _ = run(script, [3100])
    assert fake.asked[-1][-1] == [START, EN, TASK]


def test_silence_is_skipped_but_not_where_the_model_is_sure():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, at(9)), avg_logprob=-1.5, no_speech=0.9),
        (0, 3000, 0.0): Reply((at(0), 2, at(9)), avg_logprob=-0.5, no_speech=0.9),
    }
    transcripts, fake, _ = run(script, [6000])
    assert times(transcripts[0]) == [(30.0, 39.0, "w2")]
    assert [t for _, _, t, _ in fake.asked] == [0.0, 0.0]


def test_empty_segments_are_left_out_of_text_and_prompt():
    script = {
        (0, 0, 0.0): Reply((at(0), at(5), at(5), 1, at(7), at(7))),
        (0, 700, 0.0): Reply((at(0), 2, at(1))),
    }
    transcripts, fake, _ = run(script, [3700])
    assert [s.text for s in transcripts[0].segments] == ["w1", "w2"]
    assert fake.asked[1][-1] == [PREVIOUS, at(5), 1, at(7), START, EN, TASK]


def one_window(index):
    return {(index, 0, 0.0): Reply((at(0), index + 1, at(1)))}


def test_finished_slots_are_refilled():
    script = one_window(0) | one_window(1) | one_window(2) | one_window(3)
    script |= {(0, 3000, 0.0): Reply((at(0), 9, at(1))), (0, 6000, 0.0): Reply((at(0), 8, at(1)))}
    transcripts, fake, order = run(script, [6100, 500, 500, 500])
    assert order[0] == 1 and sorted(order) == [0, 1, 2, 3]
    assert {shape[0] for shape in fake.batches} == {2}
    assert len(fake.batches) == 3  # the long one's three windows, the others beside them
    assert [s.text for s in transcripts[0].segments] == ["w1", "w9", "w8"]
    assert [transcripts[i].text for i in (1, 2, 3)] == ["w2", "w3", "w4"]


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_results_do_not_depend_on_the_number_of_slots(slots):
    script = one_window(0) | one_window(1) | one_window(2)
    script |= {(1, 3000, 0.0): Reply((at(0), 9, at(1)), avg_logprob=-3.0)}
    script |= {(1, 3000, 0.2): Reply((at(0), 9, at(1)))}
    expected, two, _ = run(script, [100, 3200, 300])
    transcripts, fake, _ = run(script, [100, 3200, 300], dataclasses.replace(SETTINGS, slots=slots))
    assert transcripts == expected
    assert fake.seeds == two.seeds


def test_an_empty_recording_takes_no_slot():
    transcripts, fake, _ = run(one_window(1), [0, 500])
    assert transcripts[0].segments == () and transcripts[1].text == "w2"
    assert len(fake.batches) == 1


def test_each_recording_has_its_own_detected_language():
    script = one_window(0) | one_window(1) | one_window(2)
    transcripts, fake, _ = run(script, [500, 500, 500], languages=(1, 0, 1))
    assert [transcripts[i].language for i in range(3)] == ["es", "en", "es"]
    assert [given for *_, given in fake.asked] == [
        [START, ES, TASK],
        [START, EN, TASK],
        [START, ES, TASK],
    ]


def test_words_start_where_the_token_before_them_ends():
    settings = dataclasses.replace(
        SETTINGS, word_timestamps=True, decode=lambda tokens: "".join(f" w{t}" for t in tokens)
    )
    script = {
        (0, 0, 0.0): Reply((at(0), 1, 2, at(5), at(5))),
        (0, 500, 0.0): Reply((at(0), 3, at(1))),
    }
    transcripts, _, _ = run(script, [900], settings)
    words = [word for segment in transcripts[0].segments for word in segment.words]
    assert [word.word for word in words] == [" w1", " w2", " w3"]
    starts = [word.start for word in words]
    np.testing.assert_allclose(starts, [0.0, 1.0, 5.0], atol=0.05)
    assert all(word.start <= word.end for word in words)


def test_leaving_early_closes_what_is_open():
    recordings = [FakeRecording(i, 500) for i in range(3)]
    fake = FakeModel(one_window(0) | one_window(1) | one_window(2))
    numbered = ((index, recording, "en") for index, recording in enumerate(recordings))
    stream = transcribe_recordings(numbered, fake.as_model(), SETTINGS)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert [recording.closed for recording in recordings[:2]] == [True, True]


CHINESE = dataclasses.replace(FORMAT, languages={"zh": EN})
TRANSLATION = dataclasses.replace(CHINESE, is_translation=True)


@pytest.mark.parametrize(("prompt_format", "text"), [(CHINESE, "w1w2"), (TRANSLATION, "w1 w2")])
def test_segments_are_joined_as_the_language_is_written(prompt_format, text):
    script = {(0, 0, 0.0): Reply((at(0), 1, at(2), at(2), 2, at(4)))}
    transcripts, _, _ = run(
        script, [400], dataclasses.replace(SETTINGS, prompt_format=prompt_format), languages=[0]
    )
    assert (transcripts[0].language, transcripts[0].text) == ("zh", text)


@pytest.mark.parametrize(("prompt_format", "words"), [(CHINESE, 2), (TRANSLATION, 1)])
def test_words_are_cut_as_the_language_is_written(prompt_format, words):
    script = {(0, 0, 0.0): Reply((at(0), 1, 2, at(4)))}
    settings = dataclasses.replace(
        SETTINGS,
        prompt_format=prompt_format,
        word_timestamps=True,
        decode=lambda tokens: "x" * len(tokens),
    )
    transcripts, _, _ = run(script, [400], settings, languages=[0])
    assert len(transcripts[0].segments[0].words) == words


class MelRecording(FakeRecording):
    """With whole windows."""

    def window(self, start_frame):
        return np.broadcast_to(super().window(start_frame)[:1], (3000, 2))


WINDOWS = Windows((4.0, 8.0, 30.0), margin_seconds=0.5)


def run_in_windows(script, lengths, slots):
    """Also returns, for each round, how many frames were heard of which (recording, start)."""
    recordings = [MelRecording(i, frames) for i, frames in enumerate(lengths)]
    fake, rounds = FakeModel(script), []

    def encode(batch):
        present = [tuple(map(int, row[0] - (1, 0))) for row in batch if row[0, 0]]
        rounds.append((batch.shape[1], present))
        return batch

    model = dataclasses.replace(fake.as_model(), encode=encode)
    settings = dataclasses.replace(SETTINGS, windows=WINDOWS, slots=slots)
    numbered = ((index, recording, "en") for index, recording in enumerate(recordings))
    transcripts = dict(transcribe_recordings(numbered, model, settings))
    assert all(recording.closed for recording in recordings)
    return transcripts, rounds


def test_what_is_left_of_a_recording_goes_to_the_shortest_window_that_holds_it():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, at(25), at(25))),
        (0, 2500, 0.0): Reply((at(0), 2, at(4), at(4))),
        (0, 2900, 0.0): Reply((at(0), 3, at(1))),
    }
    transcripts, rounds = run_in_windows(script, [3200], slots=1)
    assert rounds == [(3000, [(0, 0)]), (800, [(0, 2500)]), (400, [(0, 2900)])]
    assert times(transcripts[0]) == [(0.0, 25.0, "w1"), (25.0, 29.0, "w2"), (29.0, 30.0, "w3")]


def test_recordings_of_one_window_are_decoded_together_and_the_others_wait():
    lengths = [300, 2000, 600, 340, 351, 100]
    script = {}
    for index in range(len(lengths)):
        script |= one_window(index)
    transcripts, rounds = run_in_windows(script, lengths, slots=4)
    needed = [400, 3000, 800, 400, 800, 400]
    for frames, present in rounds:
        assert {needed[index] for index, _ in present} == {frames}
    assert len(rounds) == 4  # two of the shortest begin; the last of them finds its own round
    expected, _ = run_in_windows(script, lengths, slots=1)
    assert transcripts == expected and [transcripts[i].text for i in range(6)] == [
        f"w{index + 1}" for index in range(6)
    ]
