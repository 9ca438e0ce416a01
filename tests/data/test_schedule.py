import itertools
import random

import pytest

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.batching import BatchRules, UtteranceSize, epoch_layouts
from fastwhisper_jax.data.schedule import BatchSchedule
from fastwhisper_jax.errors import InputError

_JOINING = {"join_probability": 0.7, "timestamp_probability": 0.5}


def _sizes(count: int) -> list[UtteranceSize]:
    draw = random.Random(0)
    return [UtteranceSize(draw.uniform(0.3, 12.0), 4, draw.randrange(0, 60)) for _ in range(count)]


def _rules(**changes) -> BatchRules:
    return BatchRules(
        global_batch_size=8, buckets=(16, 32, 64), windows=Windows((30.0,)), **changes
    )


@pytest.mark.parametrize("joining", [{}, _JOINING])
def test_a_schedule_is_its_epochs_one_after_the_other(joining):
    sizes, rules = _sizes(101), _rules(**joining)
    epochs = [epoch_layouts(sizes, rules, epoch) for epoch in range(4)]
    schedule = BatchSchedule(sizes, rules, epochs=4)
    expected = list(itertools.chain.from_iterable(epochs))
    assert len(schedule) == len(expected)
    assert list(schedule) == expected
    places = [(epoch, index) for epoch in range(4) for index in range(len(epochs[epoch]))]
    assert [schedule.position(step) for step in range(len(schedule))] == places


def test_a_schedule_of_steps_equals_one_of_epochs_as_far_as_it_goes():
    sizes, rules = _sizes(101), _rules(**_JOINING)
    by_epochs = BatchSchedule(sizes, rules, epochs=3)
    by_steps = BatchSchedule(sizes, rules, steps=len(by_epochs) - 1)
    assert list(by_steps) == list(by_epochs)[:-1]
    with pytest.raises(IndexError):
        by_steps[len(by_steps)]


def test_any_step_of_a_fresh_schedule_equals_that_of_one_read_from_the_start():
    sizes, rules = _sizes(101), _rules(**_JOINING)
    read = list(BatchSchedule(sizes, rules, epochs=4))
    for step in (len(read) - 1, len(read) // 2, 0):
        assert BatchSchedule(sizes, rules, epochs=4)[step] == read[step]


def test_a_schedule_without_utterances_is_an_input_error():
    with pytest.raises(InputError, match="no utterance is left"):
        BatchSchedule([], _rules(), epochs=1)
