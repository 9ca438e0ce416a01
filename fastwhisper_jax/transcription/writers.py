"""Writes transcripts as text, JSON, SubRip and WebVTT."""

import dataclasses
import json
from collections.abc import Iterator
from typing import NamedTuple

from fastwhisper_jax.transcription.segments import Transcript


class Cue(NamedTuple):
    """A subtitle, with the seconds at which it appears and disappears."""

    start: float
    end: float
    text: str


def write_txt(transcript: Transcript) -> str:
    """Plain text, one segment a line."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def write_json(transcript: Transcript, file: str, indent: int | None = 2) -> str:
    """One JSON object: file, language, duration, text, and segments, with their words if any."""
    segments = []
    for number, segment in enumerate(transcript.segments):
        fields = {"id": number} | dataclasses.asdict(segment)
        if segment.words is None:
            del fields["words"]
        segments.append(fields)
    content = {
        "file": file,
        "language": transcript.language,
        "duration": transcript.duration,
        "text": transcript.text,
        "segments": segments,
    }
    return json.dumps(content, ensure_ascii=False, indent=indent) + "\n"


def write_srt(transcript: Transcript) -> str:
    """SubRip: a numbered cue for each segment, or for each word if words have times."""
    return "".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues(transcript), start=1)
    )


def write_vtt(transcript: Transcript) -> str:
    """WebVTT: a cue for each segment, or for each word if words have times."""
    return "WEBVTT\n\n" + "".join(
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{_escaped(cue.text)}\n\n"
        for cue in cues(transcript)
    )


def cues(transcript: Transcript) -> Iterator[Cue]:
    """Yields the subtitles: segments, or words if they have times. Empty ones are left out."""
    for segment in transcript.segments:
        if segment.words is None:
            segment_cues = [Cue(segment.start, segment.end, segment.text)]
        else:
            segment_cues = [Cue(word.start, word.end, word.word) for word in segment.words]
        for cue in segment_cues:
            # A blank line would end the cue, and an arrow would start a new one.
            text = " ".join(cue.text.split()).replace("-->", "->")
            if text:
                yield Cue(cue.start, max(cue.end, cue.start + 0.001), text)


def _time(seconds: float, point: str) -> str:
    """A time as subtitles write it, such as 01:02:03,456."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{point}{milliseconds:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
