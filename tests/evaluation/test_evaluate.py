import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.evaluate import (
    UNNAMED,
    EvaluationBatch,
    ReportFacts,
    Scoring,
    evaluate,
)

END = 9
WORDS = ["zero", "one", "two", "three", "four"]
PARAMS = {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(4)}}


def batch(rows, ids=None, prompt=None, first=0, reference="zero one"):
    """A batch whose inputs are the tokens that the stand-in model will emit.

    Its utterances have the numbers from `first` on.
    """
    ids = ids or [f"utterance-{row[0]}" for row in rows]
    return EvaluationBatch(
        inputs={"tokens": np.array(rows, np.int32)},
        prompt=np.full((len(rows), 2), 7, np.int32) if prompt is None else prompt,
        indices=range(first, first + len(ids)),
        ids=ids,
        references=[reference] * len(ids),
        durations_seconds=[2.0] * len(ids),
    )


def make_stand_in():
    traces = []

    @jax.jit
    def transcribe(params, inputs, prompt, row_mask):
        traces.append(prompt.shape)
        return jnp.where(row_mask[:, None], inputs["tokens"], END)

    return transcribe, traces


def detokenize(tokens):
    return " " + " ".join(WORDS[token] for token in tokens)


UNCHANGED = Scoring(detokenize, END, "none")
BASIC = UNCHANGED._replace(normalizer="basic")


def run(batches, scoring=BASIC, facts=UNNAMED):
    transcribe, traces = make_stand_in()
    report, utterances = evaluate(transcribe, PARAMS, batches, scoring, facts)
    return report, utterances, traces


def test_report_holds_the_closed_form_and_exactly_the_promised_fields():
    report, utterances, _ = run(
        [batch([[0, 1, END], [0, 2, 3]])], facts=ReportFacts("student", "test.jsonl", 1.5)
    )
    assert [row.hypothesis for row in utterances] == ["zero one", "zero two three"]
    fields = dataclasses.asdict(report)
    wall_seconds, compile_seconds = fields.pop("wall_seconds"), fields.pop("compile_seconds")
    assert wall_seconds > 0 and compile_seconds > 0
    assert fields.pop("rtfx") == 4.0 / wall_seconds
    assert fields == {
        "wer": 2 / 4,
        # "one" to "two three": "tw" goes in before the o, and the n becomes " thre": 2 + 5.
        "cer": 7 / 16,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 1,
        "reference_words": 4,
        "loops": 0,
        "loop_errors": 0,
        "wer_without_loops": 2 / 4,
        "utterances": 2,
        "audio_seconds": 4.0,
        "parameters": 10,
        "normalizer": "basic",
        "model": "student",
        "data": "test.jsonl",
        "load_seconds": 1.5,
    }


def test_batches_in_any_order_give_the_order_of_the_corpus_and_a_short_last_one_compiles_nothing():
    batches = [batch([[i, END], [i + 1, END]], first=i) for i in (2, 0)]
    report, utterances, traces = run([*batches, batch([[4, END]], first=4)])
    assert [row.hypothesis for row in utterances] == WORDS
    assert traces == [(2, 2)]
    assert report.utterances == 5


def test_the_report_says_what_loops_cost_and_marks_them():
    loop, rest = [3] * 8, [[0, 1, *[END] * 6], [0, 2, *[END] * 6]]
    report, utterances, _ = run([batch([rest[0], loop, rest[1]])])
    assert [row.loops for row in utterances] == [False, True, False]
    # "zero one" to eight times "three": two substitutions and six insertions.
    assert (report.loops, report.loop_errors, report.wer) == (1, 8, 9 / 6)
    assert report.wer_without_loops == 1 / 4


def test_loops_are_looked_for_in_the_texts_as_they_are_scored():
    """As it is, the hypothesis is more than three times as long as its reference."""
    said = batch([[0] * 16], reference="0" * 16)
    report, utterances, _ = run([said], BASIC._replace(normalizer="digits"))
    assert (report.wer, report.loops, utterances[0].loops) == (0.0, 0, False)


def test_rows_beyond_the_ids_are_not_scored():
    report, utterances, _ = run([batch([[0, 1], [3, 4]], ids=["only"])])
    assert [row.id for row in utterances] == ["only"]
    assert (report.wer, report.utterances, report.audio_seconds) == (0.0, 1, 2.0)


def test_a_second_evaluation_compiles_nothing():
    transcribe, traces = make_stand_in()
    first, _ = evaluate(transcribe, PARAMS, [batch([[0, 1]])], UNCHANGED)
    other = jax.tree.map(lambda x: 2 * x, PARAMS)
    second, _ = evaluate(transcribe, other, [batch([[0, 1]])], UNCHANGED)
    assert len(traces) == 1
    assert second.compile_seconds < first.compile_seconds


def test_every_row_has_its_own_prompt():
    @jax.jit
    def echo_prompt(params, inputs, prompt, row_mask):
        return prompt

    prompt = np.array([[0, END], [1, END]], np.int32)
    rows = batch([[4, 4], [4, 4]], prompt=prompt)
    _, utterances = evaluate(echo_prompt, PARAMS, [rows], UNCHANGED)
    assert [row.hypothesis for row in utterances] == ["zero", "one"]


def test_batches_are_read_while_the_device_works():
    """The texts of a batch are fetched after the next one is dispatched."""
    events = []

    def batches():
        for number in range(3):
            events.append(f"read {number}")
            yield batch([[number, END]])

    def watched(tokens):
        events.append(f"text {tokens[0]}")
        return detokenize(tokens)

    transcribe, _ = make_stand_in()
    evaluate(transcribe, PARAMS, batches(), UNCHANGED._replace(detokenize=watched))
    assert events == ["read 0", "read 1", "text 0", "read 2", "text 1", "text 2"]


def test_the_report_says_that_diacritics_were_stripped():
    report, _, _ = run([batch([[0, 1]])], BASIC._replace(strip_diacritics=True))
    assert report.normalizer == "basic+strip-diacritics"


def test_parameters_may_be_spread_over_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    params = jax.device_put(PARAMS, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    tokens = jax.device_put(jnp.array([[0, 1], [2, END]]), rows)
    spread = dataclasses.replace(batch([[0, 1], [2, END]]), inputs={"tokens": tokens})
    transcribe, traces = make_stand_in()
    _, utterances = evaluate(transcribe, params, [spread], UNCHANGED)
    assert [row.hypothesis for row in utterances] == ["zero one", "two"]
    assert len(traces) == 1


def test_no_utterance_is_an_error():
    with pytest.raises(InputError, match=r"test.jsonl holds no utterance"):
        run([], facts=ReportFacts(data="test.jsonl"))


def test_an_unknown_normaliser_is_an_error_before_any_work():
    def batches():
        raise AssertionError("a batch was read")
        yield

    with pytest.raises(InputError, match="does not exist"):
        run(batches(), BASIC._replace(normalizer="klingon"))
