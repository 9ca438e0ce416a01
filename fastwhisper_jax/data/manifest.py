"""Reads manifests: JSONL files with one utterance on each line."""

import dataclasses
import json
import math
import os
from typing import Any, NamedTuple

from fastwhisper_jax.audio.files import AudioSource
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.files import Path, is_remote, path_of

_EXAMPLE = '{"audio": "a.wav", "text": "hello", "language": "en"}'


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A stretch of speech with its transcript.

    Attributes:
        id: name of the utterance in reports.
        audio: absolute path, or audio embedded in a data set.
        text: its transcript; None if there is none.
        language: code such as "en"; None means the language of the recipe.
        offset: where the utterance starts in the audio, in seconds.
        duration: its length in seconds; None means to the end of the audio.
    """

    id: str
    audio: AudioSource
    text: str | None = None
    language: str | None = None
    offset: float = 0.0
    duration: float | None = None


class Dropped(NamedTuple):
    """An utterance that is not used, and the reason."""

    id: str
    reason: str


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """Reads a manifest. Ignores unknown fields.

    Args:
        path: JSONL file. Each line holds "audio" (relative to the file, or absolute) and may hold
            "text", "language", "id", "offset" and "duration" (seconds).

    Raises:
        InputError: the file does not exist or lists no utterance. Or a line is not a JSON object,
            names no audio, or has a field of a wrong type or with invalid Unicode; the message
            names the line.
    """
    file = path_of(path)
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise InputError(
            f"manifest {path} cannot be read ({error.strerror or error}); it must be a JSONL file, "
            f"one utterance a line, such as {_EXAMPLE}: correct the path"
        ) from error
    folder = (file if is_remote(file) else Path(os.path.realpath(file))).parent
    utterances = [
        _utterance(line, folder, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not utterances:
        raise InputError(
            f"manifest {path} is empty; it must hold at least one line such as {_EXAMPLE}"
        )
    return utterances


def _utterance(line: bytes, folder: Path, where: str) -> Utterance:
    try:
        fields: Any = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        raise InputError(
            f"{where} is not JSON ({reason}); each line must be one JSON object in UTF-8, such as "
            f"{_EXAMPLE}: correct or remove the line"
        ) from None
    if not isinstance(fields, dict):
        raise InputError(
            f"{where} holds {_shown(fields)}; each line must be a JSON object such as {_EXAMPLE}"
        )
    audio = _string(fields, "audio", where)
    if not audio:
        raise InputError(
            f'{where} has no "audio"; each line must name its audio file, such as {_EXAMPLE}'
        )
    offset = check_seconds(fields.get("offset"), "offset", where) or 0.0
    return Utterance(
        id=_string(fields, "id", where) or (f"{audio}@{offset:g}" if offset else audio),
        audio=audio if is_remote(audio) else str(folder / audio),
        text=_string(fields, "text", where),
        language=_string(fields, "language", where) or None,
        offset=offset,
        duration=check_seconds(fields.get("duration"), "duration", where, is_length=True),
    )


def check_seconds(value: Any, name: str, where: str, *, is_length: bool = False) -> float | None:
    """Checks a time in seconds that a manifest or a data set holds.

    Args:
        value: the time; None if there is none.
        name: name of the field.
        where: file and line or row for error messages, such as "train.jsonl:3".
        is_length: the time is a length, so it must be above 0.

    Returns:
        The time as a float, or None.

    Raises:
        InputError: the value is not a finite number, or is negative, or is a length of 0.
    """
    if value is None:
        return None
    # Python counts bool as int, and its JSON reader accepts NaN and Infinity.
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and (value > 0 if is_length else value >= 0):
            return float(value)
    wanted = "more than 0" if is_length else "0 or more"
    raise InputError(
        f'{where}: "{name}" is {_shown(value)}; it must be a number of seconds, {wanted}: correct '
        f'it, e.g. "{name}": 1.5, or remove it'
    )


def _string(fields: dict[str, Any], name: str, where: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(
            f'{where}: "{name}" is {_shown(value)}; it must be a string: put it in double quotes, '
            "or correct the line"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can hold half of a surrogate pair as an escape
        raise InputError(
            f'{where}: "{name}" holds {value[error.start]!r}, which is half of a character; it '
            "must be text that UTF-8 can hold: correct or remove the line"
        ) from None
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
