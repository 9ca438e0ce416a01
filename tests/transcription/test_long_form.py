"""The order of things, with a scripted model: where windows start and what prompts hold."""

import dataclasses

import numpy as np
import pytest

from fastwhisper_jax.decoding.fallback import Thresholds
from fastwhisper_jax.decoding.windows import WindowTokens
from fastwhisper_jax.transcription.long_form import LongForm, transcribe_recordings
from fastwhisper_jax.transcription.slot import Prompts
from fastwhisper_jax.transcription.window_model import WindowModel

END_OF_TEXT, START, EN, ES, TASK, PREVIOUS, BEGIN = 50, 51, 52, 53, 54, 55, 60
PROMPTS = Prompts(
    languages={"en": EN, "es": ES},
    start=START,
    after_language=(TASK,),
    previous=PREVIOUS,
    most_previous=6,
    timestamp_begin=BEGIN,
    end_of_text=END_OF_TEXT,
)
HOW = LongForm(
    prompts=PROMPTS,
    thresholds=Thresholds(),
    slots=2,
    window_frames=3000,
    decode=lambda tokens: " ".join(f"w{token}" for token in tokens),
    max_new_tokens=12,
)


def at(seconds):
    return BEGIN + round(seconds / 0.02)


@dataclasses.dataclass
class FakeRecording:
    index: int
    frames: int
    closed: bool = False

    @property
    def seconds(self):
        return self.frames / 100

    def window(self, start_frame):
        assert 0 <= start_frame < self.frames and not self.closed
        return np.full((2, 2), [self.index + 1, start_frame], np.float32)

    def close(self):
        self.closed = True


@dataclasses.dataclass(frozen=True)
class Reply:
    tokens: tuple = ()
    avg_logprob: float = -0.1
    no_speech: float = 0.0


class FakeModel:
    """Replies by (recording, start frame, temperature); keeps what it was asked."""

    def __init__(self, script, languages=()):
        self.script, self.languages = script, languages
        self.asked = []
        self.batches = []
        self.seeds = {}

    def as_model(self):
        return WindowModel(lambda x: x, self.detect, self.decode, self.attend)

    def detect(self, encoder_states):
        return np.array([self.languages[max(int(row[0, 0]) - 1, 0)] for row in encoder_states])

    def decode(self, encoder_states, prompt, lengths, temperatures, seeds, row_mask):
        self.batches.append(prompt.shape)
        tokens = np.full((len(encoder_states), 12), END_OF_TEXT, np.int32)
        log_probabilities = np.zeros((len(encoder_states), 12), np.float32)
        counts, no_speech = np.zeros(len(encoder_states), int), np.zeros(len(encoder_states))
        for row in np.flatnonzero(row_mask):
            index, start = encoder_states[row][0].astype(int)
            temperature = round(float(temperatures[row]), 1)
            given = prompt[row, : lengths[row]].tolist()
            self.asked.append((index - 1, start, temperature, given))
            self.seeds[index - 1, start, temperature] = int(seeds[row])
            reply = self.script[index - 1, start, temperature]
            counts[row] = len(reply.tokens)
            tokens[row, : counts[row]] = reply.tokens
            log_probabilities[row, 0] = reply.avg_logprob * (counts[row] + 1)
            no_speech[row] = reply.no_speech
        return WindowTokens(tokens, log_probabilities, counts, no_speech)

    def attend(self, encoder_states, row, tokens):
        """Each token of the window attends to a second of its own."""
        attention = np.full((1, len(tokens), 1500), 1e-3)
        for place in range(len(tokens)):
            attention[:, place, 50 * (place - 3) : 50 * (place - 2)] = 1.0
        return attention


def run(script, lengths, how=HOW, languages=()):
    """Languages are detected, those of the script, where there are any; else all is English."""
    recordings = [FakeRecording(i, frames) for i, frames in enumerate(lengths)]
    fake = FakeModel(script, languages)
    language = None if languages else "en"
    numbered = ((index, recording, language) for index, recording in enumerate(recordings))
    found = list(transcribe_recordings(numbered, fake.as_model(), how))
    assert all(recording.closed for recording in recordings)
    return dict(found), fake, [index for index, _ in found]


def times(transcript):
    return [(segment.start, segment.end, segment.text) for segment in transcript.segments]


def test_windows_start_where_the_last_pair_stands():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, at(10), at(12), 2, at(20), at(20), 3)),
        (0, 2000, 0.0): Reply((at(0.5), 3, at(4), at(4))),
        (0, 2400, 0.0): Reply((at(0), 4, at(3))),
    }
    found, fake, _ = run(script, [4000])
    assert times(found[0]) == [
        (0.0, 10.0, "w1"),
        (12.0, 20.0, "w2"),
        (20.5, 24.0, "w3"),
        (24.0, 27.0, "w4"),
    ]
    assert [start for _, start, *_ in fake.asked] == [0, 2000, 2400]
    assert found[0].duration == 40.0 and found[0].language == "en"


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
    how = dataclasses.replace(HOW, prompts=dataclasses.replace(PROMPTS, most_previous=0))
    script = {(0, 0, 0.0): Reply((at(0), 1, at(9))), (0, 3000, 0.0): Reply((at(0), 2, at(1)))}
    _, fake, _ = run(script, [3100], how)
    assert [given for *_, given in fake.asked] == [[START, EN, TASK]] * 2


def test_unsure_and_repetitive_windows_are_decoded_again():
    script = {
        (0, 0, 0.0): Reply((at(0), 1, at(9)), avg_logprob=-1.5),
        (0, 0, 0.2): Reply((at(0), *[7] * 11), avg_logprob=-0.1),
        (0, 0, 0.4): Reply((at(0), 2, at(9))),
    }
    how = dataclasses.replace(HOW, decode=lambda tokens: "".join(f"word {t} " for t in tokens))
    found, fake, _ = run(script, [3000], how)
    assert [temperature for _, _, temperature, _ in fake.asked] == [0.0, 0.2, 0.4]
    assert [s.text for s in found[0].segments] == ["word 2"]
    assert found[0].segments[0].temperature == 0.4
    assert len(set(fake.seeds.values())) == 3


def test_the_last_temperature_is_taken_as_it_is():
    script = {
        (0, 0, t): Reply((at(0), 1, at(9)), avg_logprob=-2.0)
        for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    }
    found, _, _ = run(script, [3000])
    assert found[0].segments[0].temperature == 1.0


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
    found, fake, _ = run(script, [6000])
    assert times(found[0]) == [(30.0, 39.0, "w2")]
    assert [t for _, _, t, _ in fake.asked] == [0.0, 0.0]


def test_empty_segments_are_left_out_of_text_and_prompt():
    script = {
        (0, 0, 0.0): Reply((at(0), at(5), at(5), 1, at(7), at(7))),
        (0, 700, 0.0): Reply((at(0), 2, at(1))),
    }
    found, fake, _ = run(script, [3700])
    assert [s.text for s in found[0].segments] == ["w1", "w2"]
    assert fake.asked[1][-1] == [PREVIOUS, at(5), 1, at(7), START, EN, TASK]


def one_window(index):
    return {(index, 0, 0.0): Reply((at(0), index + 1, at(1)))}


def test_finished_lanes_are_refilled():
    script = one_window(0) | one_window(1) | one_window(2) | one_window(3)
    script |= {(0, 3000, 0.0): Reply((at(0), 9, at(1))), (0, 6000, 0.0): Reply((at(0), 8, at(1)))}
    found, fake, order = run(script, [6100, 500, 500, 500])
    assert order[0] == 1 and sorted(order) == [0, 1, 2, 3]
    assert {shape[0] for shape in fake.batches} == {2}
    assert len(fake.batches) == 3  # the long one's three windows, the others beside them
    assert [s.text for s in found[0].segments] == ["w1", "w9", "w8"]
    assert [found[i].text for i in (1, 2, 3)] == ["w2", "w3", "w4"]


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_results_do_not_depend_on_the_number_of_lanes(slots):
    script = one_window(0) | one_window(1) | one_window(2)
    script |= {(1, 3000, 0.0): Reply((at(0), 9, at(1)), avg_logprob=-3.0)}
    script |= {(1, 3000, 0.2): Reply((at(0), 9, at(1)))}
    expected, two, _ = run(script, [100, 3200, 300])
    found, fake, _ = run(script, [100, 3200, 300], dataclasses.replace(HOW, slots=slots))
    assert found == expected
    assert fake.seeds == two.seeds


def test_an_empty_recording_takes_no_lane():
    found, fake, _ = run(one_window(1), [0, 500])
    assert found[0].segments == () and found[1].text == "w2"
    assert len(fake.batches) == 1


def test_each_recording_has_its_own_detected_language():
    script = one_window(0) | one_window(1) | one_window(2)
    found, fake, _ = run(script, [500, 500, 500], languages=(1, 0, 1))
    assert [found[i].language for i in range(3)] == ["es", "en", "es"]
    assert [given for *_, given in fake.asked] == [
        [START, ES, TASK],
        [START, EN, TASK],
        [START, ES, TASK],
    ]


def test_words_start_where_the_token_before_them_ends():
    how = dataclasses.replace(
        HOW, word_timestamps=True, decode=lambda tokens: "".join(f" w{t}" for t in tokens)
    )
    script = {
        (0, 0, 0.0): Reply((at(0), 1, 2, at(5), at(5))),
        (0, 500, 0.0): Reply((at(0), 3, at(1))),
    }
    found, _, _ = run(script, [900], how)
    words = [word for segment in found[0].segments for word in segment.words]
    assert [word.word for word in words] == [" w1", " w2", " w3"]
    starts = [word.start for word in words]
    np.testing.assert_allclose(starts, [0.0, 1.0, 5.0], atol=0.05)
    assert all(word.start <= word.end for word in words)


def test_leaving_early_closes_what_is_open():
    recordings = [FakeRecording(i, 500) for i in range(3)]
    fake = FakeModel(one_window(0) | one_window(1) | one_window(2))
    numbered = ((index, recording, "en") for index, recording in enumerate(recordings))
    stream = transcribe_recordings(numbered, fake.as_model(), HOW)
    next(stream)
    stream.close()
    assert [recording.closed for recording in recordings[:2]] == [True, True]


CHINESE = dataclasses.replace(PROMPTS, languages={"zh": EN})
TRANSLATION = dataclasses.replace(CHINESE, is_translation=True)


@pytest.mark.parametrize(("prompts", "text"), [(CHINESE, "w1w2"), (TRANSLATION, "w1 w2")])
def test_segments_are_joined_as_the_language_is_written(prompts, text):
    script = {(0, 0, 0.0): Reply((at(0), 1, at(2), at(2), 2, at(4)))}
    found, _, _ = run(script, [400], dataclasses.replace(HOW, prompts=prompts), languages=[0])
    assert (found[0].language, found[0].text) == ("zh", text)


@pytest.mark.parametrize(("prompts", "words"), [(CHINESE, 2), (TRANSLATION, 1)])
def test_words_are_cut_as_the_language_is_written(prompts, words):
    script = {(0, 0, 0.0): Reply((at(0), 1, 2, at(4)))}
    how = dataclasses.replace(
        HOW, prompts=prompts, word_timestamps=True, decode=lambda tokens: "x" * len(tokens)
    )
    found, _, _ = run(script, [400], how, languages=[0])
    assert len(found[0].segments[0].words) == words
