"""Writes prepared speech (see `shards`): divides utterances into shards, and writes one shard."""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import soundfile

from fastwhisper_jax.audio.constants import SAMPLE_RATE_HZ
from fastwhisper_jax.audio.files import audio_name, load_audio
from fastwhisper_jax.data.manifest import Dropped, Utterance
from fastwhisper_jax.data.shards import ABOUT, DROPPED, FORMAT, INDEX, lines_path, shard_path
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, write_whole

_FULL_SCALE = 2**15


def plan_shards(
    utterances: Sequence[Utterance], shard_seconds: float
) -> list[tuple[Utterance, ...]]:
    """Divides utterances into shards in order. A shard ends once it reaches `shard_seconds`."""
    shards, shard, seconds = [], list[Utterance](), 0.0
    for utterance in utterances:
        shard.append(utterance)
        seconds += utterance.duration or 0.0
        if seconds >= shard_seconds:
            shards.append(tuple(shard))
            shard, seconds = [], 0.0
    return [*shards, tuple(shard)] if shard else shards


def source_digest(utterances: Iterable[Utterance]) -> str:
    """Hashes all fields of all utterances, and the sizes of audio files on a local disk."""
    digest = hashlib.sha256()
    for utterance in utterances:
        name = audio_name(utterance.audio)
        size = os.path.getsize(name) if os.path.isfile(name) else None
        fields = (utterance.id, name, size, utterance.text, utterance.language)
        digest.update(repr((*fields, utterance.offset, utterance.duration)).encode())
    return digest.hexdigest()


def flac_bytes(audio: np.ndarray) -> bytes:
    """Encodes audio as 16-bit FLAC. Samples that came from 16-bit audio do not change.

    Args:
        audio: (A,) float32 at 16 kHz. Values outside [-1, 1] are clipped.
    """
    # libsndfile would scale floats by 2^15 - 1, which changes most samples.
    scaled = np.clip(np.rint(audio * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    file = io.BytesIO()
    soundfile.write(file, scaled.astype(np.int16), SAMPLE_RATE_HZ, "PCM_16", format="FLAC")
    return file.getvalue()


def write_shard(folder: str, number: int, utterances: Sequence[Utterance]) -> None:
    """Writes one shard. The file with its lines comes last, so it marks a complete shard.

    An utterance that cannot be read is left out, and a line gives the reason.

    Args:
        folder: the folder of prepared speech.
        number: the number of the shard.
        utterances: the utterances of the shard, in order.
    """
    audio, lines, start = list[bytes](), list[dict[str, Any]](), 0
    for utterance in utterances:
        try:
            samples = load_audio(utterance.audio, utterance.offset, utterance.duration)
        except InputError as error:
            lines.append({"dropped": utterance.id, "reason": str(error)})
            continue
        data = flac_bytes(samples)
        audio.append(data)
        lines.append(
            {
                "id": utterance.id,
                "text": utterance.text,
                "language": utterance.language,
                "duration": len(samples) / SAMPLE_RATE_HZ,
                "shard": number,
                "start": start,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
        start += len(data)
    write_whole(shard_path(Path(folder), number), b"".join(audio))
    write_whole(lines_path(Path(folder), number), _json_lines(lines))


def is_complete(folder: Path, number: int) -> bool:
    """Whether a shard is complete."""
    return lines_path(folder, number).exists() and shard_path(folder, number).exists()


def write_index(
    folder: Path, shards: int, dropped: Sequence[Dropped], about: dict[str, Any]
) -> tuple[int, list[Dropped]]:
    """Completes a folder, once all of its shards are complete.

    Args:
        folder: the folder of prepared speech.
        shards: number of shards.
        dropped: utterances that were left out before shards were written.
        about: settings and source, for prepared.json.

    Returns:
        The number of utterances, and those that were left out while shards were written.
    """
    texts = (lines_path(folder, number).read_text() for number in range(shards))
    lines = [json.loads(line) for line in itertools.chain.from_iterable(map(str.splitlines, texts))]
    undecoded = [Dropped(line["dropped"], line["reason"]) for line in lines if "dropped" in line]
    left_out = [*dropped, *undecoded]
    kept = [line for line in lines if "dropped" not in line]
    index = _json_lines(kept).encode()
    write_whole(folder / DROPPED, _json_lines([entry._asdict() for entry in left_out]))
    write_whole(folder / INDEX, index)
    totals = {
        "format": FORMAT,
        "utterances": len(kept),
        "dropped": len(left_out),
        "seconds": round(sum(line["duration"] for line in kept), 3),
        "shards": shards,
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }
    write_whole(folder / ABOUT, json.dumps(totals | about, indent=1) + "\n")
    return len(kept), undecoded


def _json_lines(rows: Iterable[dict[str, Any]]) -> str:
    # json.dumps writes ASCII. Unicode has line separators at which str.splitlines would split.
    return "".join(json.dumps(row) + "\n" for row in rows)
