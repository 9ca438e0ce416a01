import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.decoding.timestamps import TimestampRules, apply_timestamp_rules

END_OF_TEXT, NO_TIMESTAMPS, BEGIN = 20, 25, 26
LAST = 80
V = BEGIN + LAST + 1 + 3  # three tokens after the last timestamp of the window
RULES = TimestampRules(END_OF_TEXT, NO_TIMESTAMPS, LAST)


def plain_rules(logits, sequence):
    """openai/whisper's rules, one row and one condition at a time."""
    logits = logits.copy()
    logits[NO_TIMESTAMPS] = -np.inf
    logits[BEGIN + LAST + 1 :] = -np.inf
    last = len(sequence) >= 1 and sequence[-1] >= BEGIN
    before = len(sequence) < 2 or sequence[-2] >= BEGIN
    if last and before:
        logits[BEGIN:] = -np.inf
    elif last:
        logits[:END_OF_TEXT] = -np.inf
    stamps = [token for token in sequence if token >= BEGIN]
    if stamps:
        earliest = stamps[-1] if last and not before else stamps[-1] + 1
        logits[BEGIN:earliest] = -np.inf
    if not sequence:
        logits[:BEGIN] = -np.inf
        logits[BEGIN + 50 + 1 :] = -np.inf
    if np.logaddexp.reduce(logits[BEGIN:]) > logits[:BEGIN].max():
        logits[:BEGIN] = -np.inf
    return logits


def ruled(logits, sequence):
    """`apply_timestamp_rules` to (V,) logits after a sequence."""
    tokens = np.full((1, 32), END_OF_TEXT, np.int32)
    tokens[0, : len(sequence)] = sequence
    step = jnp.int32(len(sequence)) if sequence else 0
    return np.asarray(apply_timestamp_rules(jnp.asarray(logits)[None], RULES, tokens, step))[0]


SEQUENCES = (
    [],
    [BEGIN],
    [BEGIN, 3],
    [BEGIN, 3, 4],
    [BEGIN, 3, BEGIN + 7],
    [BEGIN, 3, BEGIN + 7, BEGIN + 7],
    [BEGIN, 3, BEGIN + 7, BEGIN + 9],
    [BEGIN, 3, BEGIN + 7, BEGIN + 9, 5],
    [BEGIN + 50, 3, BEGIN + LAST],
)


@pytest.mark.parametrize("bias", [-4.0, 0.0, 4.0], ids=["text", "even", "timestamps"])
@pytest.mark.parametrize("sequence", SEQUENCES, ids=str)
def test_rules_equal_a_plain_restatement(sequence, bias):
    generator = np.random.default_rng(len(sequence))
    for _ in range(5):
        logits = generator.normal(scale=2.0, size=V).astype(np.float32)
        logits[BEGIN:] += bias
        np.testing.assert_array_equal(ruled(logits, sequence), plain_rules(logits, sequence))


def test_the_first_timestamp_is_at_most_one_second():
    (allowed,) = np.nonzero(np.isfinite(ruled(np.zeros(V, np.float32), [])))
    assert list(allowed) == list(range(BEGIN, BEGIN + 51))


def test_sequences_drawn_under_the_rules_are_well_formed():
    """Pairs, in order, no empty segment: whatever the logits."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        sequence = []
        for _ in range(30):
            logits = generator.normal(scale=3.0, size=V).astype(np.float32)
            logits[END_OF_TEXT + 1 : BEGIN] = -np.inf  # special tokens, which models suppress
            token = int(np.argmax(ruled(logits, sequence)))
            if token == END_OF_TEXT:
                break
            sequence.append(token)
        stamps = [token for token in sequence if token >= BEGIN]
        assert stamps == sorted(stamps)
        runs = "".join("t" if token >= BEGIN else "." for token in sequence)
        assert runs.startswith("t.") and "ttt" not in runs
        assert ".t." not in runs
