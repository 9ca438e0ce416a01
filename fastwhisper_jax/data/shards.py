"""Prepared speech: utterances in few large files, each found by its place and checked when read.

    FOLDER/prepared.json     what the folder was made of; written last: where it stands, all does
    FOLDER/index.jsonl       a line an utterance: id, text, language, duration, shard, start, bytes,
                             sha256; all that planning batches needs
    FOLDER/dropped.jsonl     a line for each utterance that is left out, and why
    FOLDER/shards/00000.flacs    FLAC files (16 kHz, mono, 16 bit) back to back
    FOLDER/shards/00000.jsonl    its lines of the two files above; written after it

Any part of a file can be read by itself, from a disk as from an object store.
"""

import functools
import hashlib
import json
from typing import Any

from fastwhisper_jax.audio.files import EmbeddedAudio
from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.errors import InputError, IntegrityError
from fastwhisper_jax.files import Path, read_range

FORMAT = 1
ABOUT, INDEX, DROPPED, SHARDS = "prepared.json", "index.jsonl", "dropped.jsonl", "shards"


def shard_path(folder: Path, number: int) -> Path:
    """The audio of a shard; its lines have the ending .jsonl instead."""
    return folder / SHARDS / f"{number:05d}.flacs"


def lines_path(folder: Path, number: int) -> Path:
    """The lines of a shard."""
    return folder / SHARDS / f"{number:05d}.jsonl"


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds prepared speech, all of it or a part."""
    return (folder / ABOUT).exists() or (folder / SHARDS).is_dir()


def read_prepared(folder: Path) -> list[Utterance]:
    """The utterances of a prepared folder, in the order of what it was made of; opens no audio.

    Raises:
        InputError: the folder is not complete, or of another version.
        IntegrityError: the index is not the one that was written.
    """
    if not (folder / ABOUT).exists():
        raise InputError(
            f"{folder} is not complete; give its fastwhisper prepare command again, which makes "
            "what is missing"
        )
    about = json.loads((folder / ABOUT).read_text())
    if about.get("format") != FORMAT:
        raise InputError(
            f"{folder} has format {about.get('format')!r} and this version reads {FORMAT}; prepare "
            "the data again"
        )
    index = (folder / INDEX).read_bytes()
    if hashlib.sha256(index).hexdigest() != about["index_sha256"]:
        raise IntegrityError(
            f"{folder / INDEX} has changed since it was written; give the fastwhisper prepare "
            "command again"
        )
    return [_utterance(folder, json.loads(line)) for line in index.splitlines()]


def _utterance(folder: Path, fields: dict[str, Any]) -> Utterance:
    path, start = str(shard_path(folder, fields["shard"])), fields["start"]
    name = f"{path} at byte {start}"
    read = functools.partial(_read_checked, path, start, fields["bytes"], fields["sha256"])
    return Utterance(
        id=fields["id"],
        audio=EmbeddedAudio(name, read, fields["sha256"]),
        text=fields["text"],
        language=fields["language"],
        duration=fields["duration"],
    )


def _read_checked(path: str, start: int, size: int, sha256: str) -> bytes:
    data = read_range(path, start, start + size)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(
            f"{path} is damaged between the bytes {start} and {start + size}; remove it, and give "
            "the fastwhisper prepare command again"
        )
    return data
