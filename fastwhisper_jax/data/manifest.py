"""Manifests: JSONL files that list utterances, one a line."""

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
    """One stretch of speech, and what is known about it.

    Attributes:
        id: name of the utterance in reports.
        audio: absolute path, or audio embedded in a data set.
        text: its transcript; None if there is none.
        language: code such as "en"; None leaves it to the recipe.
        offset: seconds into the audio at which it starts.
        duration: its length in seconds; None means to the end of the audio.
    """

    id: str
    audio: AudioSource
    text: str | None = None
    language: str | None = None
    offset: float = 0.0
    duration: float | None = None


class Dropped(NamedTuple):
    """An utterance that is left out: its id, and why."""

    id: str
    reason: str


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """Reads a manifest; fields that it does not know are ignored.

    Args:
        path: JSONL file. Each line holds "audio" (relative to the file, or absolute) and may hold
            "text", "language", "id", "offset" and "duration" (seconds).

    Raises:
        InputError: no such file, a line that is no JSON object or has a field missing, of a wrong
            type or of no Unicode text (file and line are named), or no utterance at all.
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


def _utterance(line: bytes, folder: Path, place: str) -> Utterance:
    try:
        fields: Any = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        raise InputError(
            f"{place} is not JSON ({reason}); each line must be one JSON object in UTF-8, such as "
            f"{_EXAMPLE}: correct or remove the line"
        ) from None
    if not isinstance(fields, dict):
        raise InputError(
            f"{place} holds {_shown(fields)}; each line must be a JSON object such as {_EXAMPLE}"
        )
    audio = _string(fields, "audio", place)
    if not audio:
        raise InputError(
            f'{place} has no "audio"; each line must name its audio file, such as {_EXAMPLE}'
        )
    offset = check_seconds(fields.get("offset"), "offset", place) or 0.0
    return Utterance(
        id=_string(fields, "id", place) or (f"{audio}@{offset:g}" if offset else audio),
        audio=audio if is_remote(audio) else str(folder / audio),
        text=_string(fields, "text", place),
        language=_string(fields, "language", place) or None,
        offset=offset,
        duration=check_seconds(fields.get("duration"), "duration", place, is_length=True),
    )


def check_seconds(value: Any, name: str, place: str, *, is_length: bool = False) -> float | None:
    """A time in seconds as data give it; None where they give none.

    Args:
        value: what they hold.
        name: of the field.
        place: where it stands, such as "train.jsonl:3".
        is_length: it must be above 0.

    Raises:
        InputError: it is no finite number, or negative, or a length of 0.
    """
    if value is None:
        return None
    # bool is an int in Python and no number here; JSON as Python reads it has NaN and Infinity.
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and (value > 0 if is_length else value >= 0):
            return float(value)
    wanted = "more than 0" if is_length else "0 or more"
    raise InputError(
        f'{place}: "{name}" is {_shown(value)}; it must be a number of seconds, {wanted}: correct '
        f'it, e.g. "{name}": 1.5, or remove it'
    )


def _string(fields: dict[str, Any], name: str, place: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(
            f'{place}: "{name}" is {_shown(value)}; it must be a string: put it in double quotes, '
            "or correct the line"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON may escape one half of a surrogate pair
        raise InputError(
            f'{place}: "{name}" holds {value[error.start]!r}, which is half of a character; it '
            "must be text that UTF-8 can hold: correct or remove the line"
        ) from None
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
