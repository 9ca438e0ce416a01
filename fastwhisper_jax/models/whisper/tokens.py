"""From transcripts to decoder inputs: prompt, label, and the mask of what is a target."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastwhisper_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import WhisperTokenizer

END_OF_TEXT = "<|endoftext|>"
TASKS = ("transcribe", "translate")

# Where GPT-2's English vocabulary has its end of text; multilingual Whisper's lies one higher.
_ENGLISH_END_OF_TEXT = 50256


class DecoderArrays(NamedTuple):
    """One row of decoder inputs and targets: (T,) int32, (T,) int32, (T,) float32."""

    input_ids: np.ndarray
    labels: np.ndarray
    label_mask: np.ndarray


def load_tokenizer(folder: str | Path) -> "WhisperTokenizer":
    """Reads a Whisper tokenizer from a Hugging Face folder.

    Raises:
        InputError: the folder holds no tokenizer, or one that is not Whisper's.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise InputError(
            f"no tokenizer in {folder}; a model folder must hold tokenizer.json (or vocab.json and "
            "merges.txt): copy them from the model's page"
        )
    # Otherwise importing transformers prints that PyTorch is missing, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import WhisperTokenizer

    try:
        tokenizer: Any = WhisperTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers lets its parsers' own errors through
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the tokenizer in {folder} cannot be read ({reason}); it must be Whisper's: copy the "
            "tokenizer files again from the model's page"
        ) from error
    for token in (END_OF_TEXT, "<|startoftranscript|>", "<|notimestamps|>"):
        if not _has_token(tokenizer, token):
            raise InputError(
                f"the tokenizer in {folder} has no token {token}; it must be Whisper's: copy the "
                "tokenizer files from a Whisper model's page"
            )
    return tokenizer


def end_of_text(tokenizer: "WhisperTokenizer") -> int:
    """Id of the token that ends a transcript and pads what follows it."""
    return _ids(tokenizer, END_OF_TEXT)[0]


def no_timestamps_token(tokenizer: "WhisperTokenizer") -> int:
    """Id of the token that asks for plain text; that of 0.00 s follows it in every vocabulary."""
    return _ids(tokenizer, "<|notimestamps|>")[0]


def is_multilingual(tokenizer: "WhisperTokenizer") -> bool:
    """Whether the model is told a language and a task.

    English-only vocabularies list the task tokens too, unused; they are known by GPT-2's ids.
    """
    has_tasks = _has_token(tokenizer, "<|transcribe|>")
    return has_tasks and end_of_text(tokenizer) != _ENGLISH_END_OF_TEXT


def language_code(language: str) -> str:
    """Code such as "en" of a language that is given by its code or English name, in any case."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return TO_LANGUAGE_CODE.get(language.lower(), language.lower())


def prompt_tokens(
    tokenizer: "WhisperTokenizer", language: str | None, task: str = "transcribe"
) -> tuple[int, ...]:
    """What the decoder is given before the transcript.

    Args:
        tokenizer: of the model.
        language: code ("en") or English name ("english"); English-only models need none.
        task: "transcribe" or "translate".

    Returns:
        Ids of start of transcript, language, task, no timestamps; without language and task for
        an English-only model.

    Raises:
        InputError: the model does not know the language or the task.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r} is not known; it must be one of {', '.join(TASKS)}")
    if not is_multilingual(tokenizer):
        if (language and language_code(language)) not in (None, "en") or task != "transcribe":
            raise InputError(
                f"language {language!r} and task {task!r} are given to an English-only model; "
                "it can only transcribe English: choose a multilingual model"
            )
        return _ids(tokenizer, "<|startoftranscript|>", "<|notimestamps|>")
    if language is None:
        raise InputError(
            "no language is given; a multilingual model must be told one: set the recipe's "
            'language, or "language" in each line of the manifest'
        )
    token = f"<|{language_code(language)}|>"
    if not _has_token(tokenizer, token):
        raise InputError(
            f'language {language!r} is not known to the model; it must be a code such as "en" or '
            'an English name such as "english": correct it in the manifest or the recipe'
        )
    return _ids(tokenizer, "<|startoftranscript|>", token, f"<|{task}|>", "<|notimestamps|>")


def label_tokens(tokenizer: "WhisperTokenizer", text: str) -> tuple[int, ...]:
    """Ids of a transcript, with the leading space that Whisper itself writes; () for silence.

    Because of that space, the ids of two texts joined by a space are the two texts' ids joined.
    """
    text = text.strip()
    if not text:
        return ()
    return tuple(tokenizer(" " + text, add_special_tokens=False).input_ids)


def decoder_arrays(
    prompt: Sequence[int], label: Sequence[int], length: int, end_of_text: int
) -> DecoderArrays:
    """One row of teacher-forced inputs and targets.

    The inputs are prompt + label, the targets the same shifted by one and ended by one end of
    text; end of text pads both. The mask is 1 for the label's tokens and that first end of text:
    prompt tokens are given, not predicted, and padding is no target though it is the same token.

    Args:
        prompt: P ids.
        label: N ids.
        length: T, at least P + N.
        end_of_text: id of end of text.
    """
    given = [*prompt, *label]
    if not prompt or len(given) > length:
        raise ValueError(f"{len(prompt)} prompt and {len(label)} label tokens in {length} places")
    input_ids = np.full((length,), end_of_text, np.int32)
    input_ids[: len(given)] = given
    labels = np.full((length,), end_of_text, np.int32)
    labels[: len(given) - 1] = given[1:]
    label_mask = np.zeros((length,), np.float32)
    label_mask[len(prompt) - 1 : len(given)] = 1.0
    return DecoderArrays(input_ids, labels, label_mask)


def _ids(tokenizer: "WhisperTokenizer", *tokens: str) -> tuple[int, ...]:
    ids: Any = tokenizer.convert_tokens_to_ids(list(tokens))
    return tuple(int(token_id) for token_id in ids)


def _has_token(tokenizer: "WhisperTokenizer", token: str) -> bool:
    # An unknown token's id is that of end of text, so look whether the id leads back.
    token_id = tokenizer.convert_tokens_to_ids(token)
    return token_id is not None and tokenizer.convert_ids_to_tokens(token_id) == token
