"""Transcripts as text, JSON, SubRip and WebVTT."""

import dataclasses
import json
from collections.abc import Iterator
from typing import NamedTuple

from fastwhisper_jax.transcription.segments import Transcript


class Cue(NamedTuple):
    """A line on the screen, from start to end in seconds."""

    start: float
    end: float
    text: str


def write_txt(transcript: Transcript) -> str:
    """One segment a line."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def write_json(transcript: Transcript, file: str, indent: int | None = 2) -> str:
    """One object: file, language, duration, text, and segments (with words where there are any)."""
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
    """SubRip: a numbered cue for each segment, or for each word where there are words."""
    return "".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues(transcript), start=1)
    )


def write_vtt(transcript: Transcript) -> str:
    """WebVTT: a cue for each segment, or for each word where there are words."""
    return "WEBVTT\n\n" + "".join(
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{_escaped(cue.text)}\n\n"
        for cue in cues(transcript)
    )


def cues(transcript: Transcript) -> Iterator[Cue]:
    """What subtitles show: segments, or words where there are any; none of them empty."""
    for segment in transcript.segments:
        if segment.words is None:
            found = [Cue(segment.start, segment.end, segment.text)]
        else:
            found = [Cue(word.start, word.end, word.word) for word in segment.words]
        for cue in found:
            # A blank line would end the cue, an arrow would start one.
            text = " ".join(cue.text.split()).replace("-->", "->")
            if text:
                yield Cue(cue.start, max(cue.end, cue.start + 0.001), text)


def _time(seconds: float, point: str) -> str:
    """01:02:03,456"""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{point}{milliseconds:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
