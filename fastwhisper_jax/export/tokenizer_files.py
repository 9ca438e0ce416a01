"""Collects the tokenizer files of an export: copies the base model's, and derives missing ones."""

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


def tokenizer_files(base_folder: Path) -> dict[str, bytes]:
    """Returns the content of the student's tokenizer files.

    Files of the base model are copied byte for byte. Missing ones are derived:
    - vocab.json, merges.txt, added_tokens.json and special_tokens_map.json from tokenizer.json.
      whisper.cpp's converter and the slow tokenizers of transformers read them.
    - normalizer.json from OpenAI's spelling table. `tokenizer.normalize()` of transformers fails
      without it.

    Args:
        base_folder: Hugging Face folder of the base model.

    Returns:
        File names and their content.

    Raises:
        InputError: the folder has no tokenizer, or its tokenizer.json is not Whisper's.
    """
    files = {
        name: (base_folder / name).read_bytes()
        for name in TOKENIZER_FILES
        if (base_folder / name).is_file()
    }
    if "tokenizer.json" in files:
        files = {**_derived(base_folder / "tokenizer.json"), **files}
    elif not {"vocab.json", "merges.txt"} <= files.keys():
        raise InputError(
            f"{base_folder} has neither tokenizer.json nor vocab.json with merges.txt;"
            " copy the teacher's tokenizer files into it"
        )
    if "normalizer.json" not in files:
        files["normalizer.json"] = _json_bytes(EnglishSpellingNormalizer().mapping)
    return files


def _derived(path: Path) -> dict[str, bytes]:
    """Makes the files that a slow tokenizer saves beside tokenizer.json."""
    tokenizer = read_json(path)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        # A merge is a pair since tokenizers 0.20; it was a string "left right" before.
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
        # Without it, slow tokenizers do not remove <|startoftranscript|> and the like from text.
        "special_tokens_map.json": _json_bytes({"additional_special_tokens": special}),
    }


def _json_bytes(table: dict[str, Any]) -> bytes:
    return (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode()
