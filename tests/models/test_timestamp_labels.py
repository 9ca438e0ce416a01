import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.timestamp_labels import (
    check_timestamps,
    timestamped,
    timestamped_length,
)

NO_TIMESTAMPS = 99
PROMPT = (50, 51, 52, NO_TIMESTAMPS)
AT_ZERO = 100


def times_added(labels, seconds):
    return timestamped(PROMPT, labels, seconds)


def test_an_utterance_stands_between_its_times():
    prompt, label = times_added([(7, 8)], [3.2])
    assert prompt == (50, 51, 52)
    assert label == (AT_ZERO, 7, 8, AT_ZERO + 160)


def test_joined_utterances_have_their_own_times_rounded_to_two_hundredths():
    _, label = times_added([(7,), (8, 9), (6,)], [1.009, 0.5, 2.02])
    ends = [round(seconds / 0.02) for seconds in (1.009, 1.509, 3.529)]
    assert ends == [50, 75, 176]
    assert [token - AT_ZERO for token in label if token >= AT_ZERO] == [
        0,
        50,
        50,
        75,
        75,
        176,
    ]
    assert [token for token in label if token < AT_ZERO] == [7, 8, 9, 6]


def test_silence_between_utterances_has_no_times_of_its_own():
    _, label = times_added([(7,), (), (8,)], [1.0, 2.0, 1.0])
    assert label == (AT_ZERO, 7, AT_ZERO + 50, AT_ZERO + 150, 8, AT_ZERO + 200)


def test_a_silent_row_ends_where_it_begins():
    assert times_added([()], [4.0])[1] == (AT_ZERO,)


@pytest.mark.parametrize("labels", [[()], [(1,)], [(1, 2), (), (3,)], [(), ()]])
def test_the_length_is_known_beforehand(labels):
    prompt, label = times_added(labels, [1.0] * len(labels))
    expected = len(prompt) + len(label)
    assert timestamped_length(len(PROMPT), [len(label) for label in labels]) == expected


def test_a_vocabulary_without_the_windows_timestamps_is_refused():
    check_timestamps(PROMPT, AT_ZERO + 1501, 30.0)
    with pytest.raises(InputError, match="timestamp_probability.*1600 tokens.*30 s.*token 1600"):
        check_timestamps(PROMPT, AT_ZERO + 1500, 30.0)
