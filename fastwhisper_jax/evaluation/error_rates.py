"""Word and character error rates of a corpus."""

import dataclasses
from collections.abc import Iterable, Sequence

import jiwer

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.normalizers import Normalizer


@dataclasses.dataclass(frozen=True)
class ErrorRates:
    """Error rates of a corpus: sums over all utterances, divided once (not a mean of rates).

    Attributes:
        wer: (substitutions + deletions + insertions) / reference_words, a fraction.
        cer: the same over characters, a fraction; the single spaces between words count.
        substitutions: number of wrong words.
        deletions: number of missing words.
        insertions: number of words too many.
        reference_words: number of words in all normalised references.
    """

    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        """Number of word errors."""
        return self.substitutions + self.deletions + self.insertions


def normalized(texts: Iterable[str], normalize: Normalizer) -> list[str]:
    """The texts as they are scored: normalised, with single spaces between words."""
    return [" ".join(normalize(text).split()) for text in texts]


def error_rates(
    references: Sequence[str], hypotheses: Sequence[str], normalize: Normalizer
) -> ErrorRates:
    """Counts the errors of all hypotheses against their references, both normalised.

    A reference may be empty after normalising ("[music]"). It adds no reference words, and every
    word of its hypothesis is an insertion. With the `digits` normaliser, the word error rate is the
    digit error rate.

    Args:
        references: what was said, one text for each utterance.
        hypotheses: what was recognised, in the same order.
        normalize: applied to both sides; see `normalizers.normalizer`.

    Returns:
        The rates; they exceed 1.0 if there are more errors than reference words.

    Raises:
        InputError: the lengths differ, or no reference has a word left, so that there is no rate.

    Source: jiwer `process_words` and `process_characters`.
    """
    if len(references) != len(hypotheses):
        raise InputError(
            f"{len(references)} references against {len(hypotheses)} hypotheses; "
            "give one hypothesis for each reference"
        )
    left, right = normalized(references, normalize), normalized(hypotheses, normalize)
    if not any(left):
        raise InputError(
            f"none of {len(left)} references has a word left after normalising, so there is no "
            "error rate; give texts with words, or another normaliser"
        )
    words = jiwer.process_words(left, right)
    characters = jiwer.process_characters(left, right)
    return ErrorRates(
        wer=words.wer,
        cer=characters.cer,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        reference_words=words.hits + words.substitutions + words.deletions,
    )
