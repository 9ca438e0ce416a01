"""Beam search as transformers does it, restated over lists, for tests to compare with."""

import numpy as np


def search_of_transformers(log_probs_after, end_of_text, new, beams, penalty):
    """`GenerationMixin._beam_search` for one row, over lists, with early_stopping=False.

    Args:
        log_probs_after: tokens emitted so far -> (V,) log-probabilities of the next.
        end_of_text: ends a text.
        new: the most tokens of a text.
        beams: how many texts are kept, of those that go on and of those that have ended.
        penalty: power of the length.

    Returns:
        The best text's score and its tokens.
    """
    running, finished = [(0.0, ())], []
    for length in range(1, new + 1):
        candidates = [
            (score + log_prob, (*text, token))
            for score, text in running
            for token, log_prob in enumerate(log_probs_after(text))
            if log_prob > -np.inf
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * beams]
        ends = [text[-1] == end_of_text or length == new for _, text in candidates]
        finished += [
            (score / length**penalty, text)
            for (score, text), end in zip(candidates[:beams], ends, strict=False)
            if end
        ]
        finished = sorted(finished, reverse=True)[:beams]
        running = [row for row, end in zip(candidates, ends, strict=True) if not end][:beams]
        if not running:
            break
        if len(finished) == beams and running[0][0] / length**penalty <= finished[-1][0]:
            break
    return finished[0]
