"""Tokenizer files of an export: the teacher's byte for byte, and those derived that it lacks."""

import json
from pathlib import Path
from typing import Any

from whisper_normalizer.english import EnglishSpellingNormalizer

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_configs import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "normalizer.json",
)


def tokenizer_files(teacher_folder: Path) -> dict[str, bytes]:
    """Content of the student's tokenizer files, by file name.

    What the teacher has is taken byte for byte; the rest is derived. whisper.cpp's converter and
    transformers' slow tokenizers read vocab.json, merges.txt, added_tokens.json and
    special_tokens_map.json, which come from tokenizer.json. transformers' `tokenizer.normalize()`
    fails without normalizer.json, which is OpenAI's spelling table.

    Raises:
        InputError: the teacher has no tokenizer, or its tokenizer.json is not Whisper's.
    """
    files = {
        name: (teacher_folder / name).read_bytes()
        for name in TOKENIZER_FILES
        if (teacher_folder / name).is_file()
    }
    if "tokenizer.json" in files:
        files = {**_derived(teacher_folder / "tokenizer.json"), **files}
    elif not {"vocab.json", "merges.txt"} <= files.keys():
        raise InputError(
            f"{teacher_folder} has neither tokenizer.json nor vocab.json with merges.txt;"
            " copy the teacher's tokenizer files into it"
        )
    if "normalizer.json" not in files:
        files["normalizer.json"] = _json_bytes(EnglishSpellingNormalizer().mapping)
    return files


def _derived(path: Path) -> dict[str, bytes]:
    """The files that a slow tokenizer would have saved beside tokenizer.json."""
    tokenizer = read_json(path)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        # written as pairs since tokenizers 0.20, as "left right" before
        merges = [
            pair if isinstance(pair, str) else " ".join(pair)
            for pair in tokenizer["model"]["merges"]
        ]
        added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        special = [token["content"] for token in tokenizer["added_tokens"] if token["special"]]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a byte-level BPE tokenizer ({error!r}); give Whisper's own"
        ) from error
    added = {token: number for token, number in added.items() if token not in vocabulary}
    return {
        "vocab.json": _json_bytes(vocabulary),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]).encode(),
        "added_tokens.json": _json_bytes(added),
        # without it a slow tokenizer leaves <|startoftranscript|> and the like in the text
        "special_tokens_map.json": _json_bytes({"additional_special_tokens": special}),
    }


def _json_bytes(table: dict[str, Any]) -> bytes:
    return (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode()
