"""From sources of speech to a corpus with Whisper's prompts and labels."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fastwhisper_jax.audio.files import audio_name
from fastwhisper_jax.data.corpus import Corpus, UtteranceTokens, make_corpus
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.data.sources import read_source
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.tokens import (
    is_multilingual,
    label_tokens,
    language_code,
    prompt_tokens,
)

if TYPE_CHECKING:
    from transformers import WhisperTokenizer


def read_corpus(
    sources: Sequence[str],
    tokenizer: "WhisperTokenizer",
    *,
    language: str | None,
    task: str,
    buckets: Sequence[int],
    context_seconds: float,
    reads_text: bool = True,
) -> Corpus:
    """Reads and tokenises utterances, and selects those that fit the model.

    Args:
        sources: manifests or data sets, see `data.sources.read_source`.
        tokenizer: the model's tokenizer.
        language: code or English name of the language of utterances that name none.
        task: "transcribe" or "translate".
        buckets: target lengths T; the longest bounds prompt and label.
        context_seconds: length of the encoder's window.
        reads_text: False gives every utterance an empty label, for an objective without labels.

    Raises:
        InputError: a source cannot be used, or no utterance fits.
    """
    if language is None and not is_multilingual(tokenizer):
        language = "en"
    utterances = [
        _with_language(utterance, language)
        for source in sources
        for utterance in read_source(source)
    ]
    texts = utterances if reads_text else [dataclasses.replace(u, text="") for u in utterances]
    tokens = tokenise(tokenizer, texts, task)
    return make_corpus(", ".join(sources), utterances, tokens, buckets, context_seconds)


def _with_language(utterance: Utterance, default: str | None) -> Utterance:
    language = utterance.language or default
    return dataclasses.replace(utterance, language=language and language_code(language))


def tokenise(
    tokenizer: "WhisperTokenizer", utterances: Iterable[Utterance], task: str = "transcribe"
) -> list[UtteranceTokens]:
    """Prompt and label of each utterance.

    Raises:
        InputError: an utterance has no text, or a language that the model does not know.
    """
    prompts: dict[str | None, tuple[int, ...]] = {}
    rows = []
    for utterance in utterances:
        language = utterance.language
        if utterance.text is None:
            raise InputError(
                f"utterance {utterance.id} ({audio_name(utterance.audio)}) has no text; each "
                'utterance needs a transcript, to learn or to be scored: add "text"'
            )
        if language not in prompts:
            try:
                prompts[language] = prompt_tokens(tokenizer, language, task)
            except InputError as error:
                raise InputError(f"utterance {utterance.id}: {error}") from None
        rows.append(UtteranceTokens(prompts[language], label_tokens(tokenizer, utterance.text)))
    return rows
