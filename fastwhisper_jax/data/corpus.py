"""What a run trains or is scored on: the utterances that fit the model, with their tokens."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from fastwhisper_jax.data.batching import UtteranceSize, select_fitting
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.errors import InputError


class UtteranceTokens(NamedTuple):
    """What a model is given and what it must write for one utterance: ids of any vocabulary."""

    prompt: tuple[int, ...]
    label: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Utterances that fit the model, in the order of their sources.

    Attributes:
        utterances: with text, duration and the code of their language.
        tokens: prompt and label of each utterance.
        sizes: what batching needs to know of each utterance.
        summary: one line for the user: how many utterances there are, and how many were dropped
            for which reason.
    """

    utterances: tuple[Utterance, ...]
    tokens: tuple[UtteranceTokens, ...]
    sizes: tuple[UtteranceSize, ...]
    summary: str

    def select(self, indices: Sequence[int]) -> "Corpus":
        """The utterances with these numbers, in this order."""
        return dataclasses.replace(
            self,
            utterances=tuple(self.utterances[i] for i in indices),
            tokens=tuple(self.tokens[i] for i in indices),
            sizes=tuple(self.sizes[i] for i in indices),
        )


def make_corpus(
    name: str,
    utterances: Sequence[Utterance],
    tokens: Sequence[UtteranceTokens],
    buckets: Sequence[int],
    context_seconds: float,
) -> Corpus:
    """Selects the utterances that fit the model; the others are dropped and counted, never cut.

    Args:
        name: where the utterances come from, for the summary and for errors.
        utterances: all of them.
        tokens: prompt and label of each utterance.
        buckets: target lengths T; the longest bounds prompt and label.
        context_seconds: length of the encoder's window.

    Raises:
        InputError: no utterance fits.
    """
    sizes = [
        UtteranceSize(
            utterance.duration or 0.0,
            len(row.prompt),
            len(row.label),
            " ".join(map(str, row.prompt)),
        )
        for utterance, row in zip(utterances, tokens, strict=True)
    ]
    selection = select_fitting(sizes, buckets, context_seconds)
    if not selection.kept:
        raise InputError(
            f"none of {len(utterances)} utterances of {name} fits {context_seconds:g} s of audio "
            f"and {max(buckets)} tokens; cut the recordings at sentences, or allow longer ones"
        )
    minutes = sum(sizes[i].seconds for i in selection.kept) / 60
    summary = f"{name}: {len(selection.kept)} utterances, {minutes:.1f} minutes"
    if selection.dropped:
        summary += (
            f"; dropped {selection.too_long_audio} longer than {context_seconds:g} s and "
            f"{selection.too_long_label} of more than {max(buckets)} tokens"
        )
    everything = Corpus(tuple(utterances), tuple(tokens), tuple(sizes), summary)
    return everything.select(selection.kept)
