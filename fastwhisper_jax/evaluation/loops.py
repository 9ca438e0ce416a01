"""Loops: hypotheses that repeat themselves or run on, and what they cost."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jiwer

from fastwhisper_jax.evaluation.error_rates import ErrorRates

# Six characters in a row that occur more than five times: the n-gram check of K2D. Repeats that the
# reference holds too do not count.
STRETCH = 6
MOST_REPEATS = 5
# A hypothesis is too long above this many times its reference and this many characters.
LONGEST_RATIO = 3
LONGEST_EXCESS = 20


class LoopCost(NamedTuple):
    """What loops cost.

    Attributes:
        loops: number of hypotheses that loop.
        loop_errors: number of word errors in them.
        wer_without_loops: word error rate of all other utterances, a fraction; None if their
            references have no word.
    """

    loops: int
    loop_errors: int
    wer_without_loops: float | None


def is_loop(reference: str, hypothesis: str) -> bool:
    """Whether a hypothesis repeats itself or runs on.

    It does if some six characters in a row occur in it at least six times more often than any do
    in its reference, or if it is longer than three times its reference plus 20 characters. The
    reference may repeat other characters, because a repeat that was said may be heard wrongly.

    >>> is_loop("no no no no no no no no no", "no no no no no no no no no")
    False
    >>> is_loop("no, thank you", "no no no no no no no no no")
    True

    Args:
        reference: what was said, normalised. It may be empty.
        hypothesis: what was recognised, normalised. Spaces count; a script needs none.

    Source: the n-gram check of K2D, arXiv 2407.10603 (6 characters, more than 5 times).
    """
    if len(hypothesis) > LONGEST_RATIO * len(reference) + LONGEST_EXCESS:
        return True
    return _most_repeats(hypothesis) - _most_repeats(reference) > MOST_REPEATS


def _most_repeats(text: str) -> int:
    """How often the most frequent stretch of a text occurs; occurrences may overlap."""
    stretches = (text[start : start + STRETCH] for start in range(len(text) - STRETCH + 1))
    return max(Counter(stretches).values(), default=0)


def loop_cost(
    references: Sequence[str], hypotheses: Sequence[str], loops: Sequence[bool], rates: ErrorRates
) -> LoopCost:
    """Divides the errors of a corpus into those of loops and those of all other utterances.

    Args:
        references: what was said, normalised.
        hypotheses: what was recognised, normalised, in the same order.
        loops: whether each hypothesis is a loop.
        rates: of all utterances.
    """
    if not any(loops):
        return LoopCost(0, 0, rates.wer)
    pairs = zip(references, hypotheses, loops, strict=True)
    left, right = zip(*((said, heard) for said, heard, loop in pairs if loop), strict=True)
    words = jiwer.process_words(list(left), list(right))
    missed = words.substitutions + words.deletions
    other_words = rates.reference_words - words.hits - missed
    errors = missed + words.insertions
    without = (rates.errors - errors) / other_words if other_words else None
    return LoopCost(len(left), errors, without)
