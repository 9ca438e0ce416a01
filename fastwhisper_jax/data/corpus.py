"""What a run trains or is scored on: the utterances that fit the model, with their tokens."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastwhisper_jax.data.batching import UtteranceSize, select_fitting
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.data.sources import read_source
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.tokens import (
    UtteranceTokens,
    is_multilingual,
    language_code,
    tokenise,
)

if TYPE_CHECKING:
    from transformers import WhisperTokenizer


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Utterances that fit the model, in the order of their sources.

    Attributes:
        utterances: with text, duration and the code of their language.
        tokens: prompt and label of each.
        sizes: what batch planning needs of each.
        summary: one line for the user: how many there are, and how many were dropped and why.
    """

    utterances: tuple[Utterance, ...]
    tokens: tuple[UtteranceTokens, ...]
    sizes: tuple[UtteranceSize, ...]
    summary: str


def read_corpus(
    sources: Sequence[str],
    tokenizer: "WhisperTokenizer",
    *,
    language: str | None,
    task: str,
    buckets: Sequence[int],
    context_seconds: float,
) -> Corpus:
    """Reads, tokenises and selects; what is too long is dropped and counted, never cut.

    Args:
        sources: manifests or data sets, see `sources.read_source`.
        tokenizer: of the model.
        language: code or English name, of utterances that name none.
        task: "transcribe" or "translate".
        buckets: target lengths T; the longest bounds prompt and label.
        context_seconds: length of the encoder's window.

    Raises:
        InputError: a source cannot be used, or nothing is left.
    """
    if language is None and not is_multilingual(tokenizer):
        language = "en"
    found = (utterance for source in sources for utterance in read_source(source))
    utterances = [_with_language(utterance, language) for utterance in found]
    tokens = tokenise(tokenizer, utterances, task)
    sizes = [
        UtteranceSize(
            utterance.duration or 0.0,
            len(row.prompt),
            len(row.label),
            " ".join(map(str, row.prompt)),
        )
        for utterance, row in zip(utterances, tokens, strict=True)
    ]
    chosen = select_fitting(sizes, buckets, context_seconds)
    names = ", ".join(sources)
    if not chosen.kept:
        raise InputError(
            f"none of {len(utterances)} utterances of {names} fits {context_seconds:g} s of audio "
            f"and {max(buckets)} tokens; cut the recordings at sentences, or allow longer ones"
        )
    seconds = sum(sizes[i].seconds for i in chosen.kept)
    summary = f"{names}: {len(chosen.kept)} utterances, {seconds / 60:.1f} minutes"
    if chosen.dropped:
        summary += (
            f"; dropped {chosen.too_long_audio} longer than {context_seconds:g} s and "
            f"{chosen.too_long_label} of more than {max(buckets)} tokens"
        )
    return Corpus(
        tuple(utterances[i] for i in chosen.kept),
        tuple(tokens[i] for i in chosen.kept),
        tuple(sizes[i] for i in chosen.kept),
        summary,
    )


def _with_language(utterance: Utterance, default: str | None) -> Utterance:
    spoken = utterance.language or default
    return dataclasses.replace(utterance, language=spoken and language_code(spoken))
