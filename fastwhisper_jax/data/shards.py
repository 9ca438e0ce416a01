"""Reads prepared speech: many utterances in a few large files, with a hash for each utterance.

    FOLDER/prepared.json         the settings and the source; written last, so it marks a complete
                                 folder
    FOLDER/index.jsonl           one line per utterance: id, text, language, duration, shard, start,
                                 bytes, sha256; enough to plan batches without reading audio
    FOLDER/dropped.jsonl         one line per utterance that was left out, with the reason
    FOLDER/shards/00000.flacs    FLAC files (16 kHz, mono, 16 bit), one after the other
    FOLDER/shards/00000.jsonl    the lines of this shard for the two files above; written after the
                                 audio

Each utterance is a range of bytes, so it can be read alone from a disk or an object store.
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
    """The file with the audio of a shard."""
    return folder / SHARDS / f"{number:05d}.flacs"


def lines_path(folder: Path, number: int) -> Path:
    """The file with the lines of a shard, see above."""
    return folder / SHARDS / f"{number:05d}.jsonl"


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds prepared speech, complete or not."""
    return (folder / ABOUT).exists() or (folder / SHARDS).is_dir()


def read_prepared(folder: Path) -> list[Utterance]:
    """Reads the utterances of a prepared folder, in the order of its source. Opens no audio.

    Raises:
        InputError: the folder is not complete, or another version wrote it.
        IntegrityError: the index has changed since it was written.
    """
    if not (folder / ABOUT).exists():
        raise InputError(
            f"{folder} is not complete; run its fastwhisper prepare command again, which makes the "
            "missing shards"
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
            f"{folder / INDEX} has changed since it was written; run the fastwhisper prepare "
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
            f"{path} is damaged between the bytes {start} and {start + size}; remove it, and run "
            "the fastwhisper prepare command again"
        )
    return data
