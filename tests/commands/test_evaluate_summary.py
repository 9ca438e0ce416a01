"""What `fastwhisper evaluate` prints of a report."""

import dataclasses

import pytest
from support.reports import REPORT

from fastwhisper_jax.commands.evaluate import summary

LOOPING = dataclasses.replace(
    REPORT,
    substitutions=100,
    insertions=203,
    utterances=93,
    loops=1,
    loop_errors=98,
    wer_without_loops=0.32,
)


def test_loops_have_a_line_that_says_what_they_cost():
    assert (
        "  loops (texts that repeat themselves or run on): 1 of 93 hypotheses with 98 of 303 "
        "errors; WER 32.00% without them"
    ) in summary(LOOPING, None).splitlines()


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"wer_without_loops": None}, "; no words are left without them"),
        ({"normalizer": "digits"}, "; digit error rate 32.00% without them"),
    ],
)
def test_the_line_names_the_rate_that_there_is(changes, end):
    report = dataclasses.replace(LOOPING, **changes)
    (line,) = [line for line in summary(report, None).splitlines() if "loops" in line]
    assert line.endswith(end)


def test_a_report_without_loops_says_nothing_of_them():
    assert "loop" not in summary(REPORT, None)
