import json
import os

import pytest

from fastwhisper_jax.files import write_whole
from fastwhisper_jax.transcription.segments import Segment, Transcript, Word
from fastwhisper_jax.transcription.writers import write_json, write_srt, write_txt, write_vtt


def segment(start, end, text, words=None):
    return Segment(start, end, text, (1, 2), 0.0, -0.5, 1.2, 0.1, words)


PLAIN = Transcript(
    "en",
    7300.0,
    (
        segment(0.0, 2.5, "Hello there."),
        segment(61.04, 62.0, "Tom & Jerry --> <i>both</i>"),
        segment(7205.999, 7208.0, "Ünïcode 好"),
    ),
)
SPOKEN = Transcript(
    "en",
    3.0,
    (
        segment(
            0.0,
            2.5,
            "Hello there.",
            (Word(" Hello", 0.0, 0.7, 0.9), Word(" there.", 0.7, 0.7, 0.8)),
        ),
    ),
)
SECONDS = [(0.0, 2.5), (61.04, 62.0), (7205.999, 7208.0)]


def test_srt_is_read_back_by_another_parser():
    srt = pytest.importorskip("srt")
    cues = list(srt.parse(write_srt(PLAIN), ignore_errors=False))
    assert [cue.index for cue in cues] == [1, 2, 3]
    assert [(c.start.total_seconds(), c.end.total_seconds()) for c in cues] == SECONDS
    assert [cue.content for cue in cues] == [
        "Hello there.",
        "Tom & Jerry -> <i>both</i>",
        "Ünïcode 好",
    ]


def test_vtt_is_read_back_by_another_parser():
    webvtt = pytest.importorskip("webvtt")
    cues = list(webvtt.from_string(write_vtt(PLAIN)))
    assert [(c.start_in_seconds, c.end_in_seconds) for c in cues] == [
        (int(start), int(end)) for start, end in SECONDS
    ]
    assert [(cue.start, cue.end) for cue in cues][1:] == [
        ("00:01:01.040", "00:01:02.000"),
        ("02:00:05.999", "02:00:08.000"),
    ]
    assert cues[2].text == "Ünïcode 好"


def test_vtt_text_holds_no_markup():
    assert "Tom &amp; Jerry -&gt; &lt;i&gt;both&lt;/i&gt;" in write_vtt(PLAIN)


def test_json_holds_every_figure():
    content = json.loads(write_json(SPOKEN, "talk.flac"))
    assert content["file"] == "talk.flac" and content["language"] == "en"
    assert content["duration"] == 3.0 and content["text"] == "Hello there."
    (only,) = content["segments"]
    assert only == {
        "id": 0,
        "start": 0.0,
        "end": 2.5,
        "text": "Hello there.",
        "tokens": [1, 2],
        "temperature": 0.0,
        "avg_logprob": -0.5,
        "compression_ratio": 1.2,
        "no_speech_prob": 0.1,
        "words": [
            {"word": " Hello", "start": 0.0, "end": 0.7, "probability": 0.9},
            {"word": " there.", "start": 0.7, "end": 0.7, "probability": 0.8},
        ],
    }
    assert "words" not in json.loads(write_json(PLAIN, "a"))["segments"][0]
    assert write_json(PLAIN, "a", indent=None).count("\n") == 1


def test_words_become_cues_that_last():
    assert write_srt(SPOKEN) == (
        "1\n00:00:00,000 --> 00:00:00,700\nHello\n\n2\n00:00:00,700 --> 00:00:00,701\nthere.\n\n"
    )


def test_txt_has_a_line_for_each_segment():
    assert write_txt(PLAIN).splitlines()[0] == "Hello there."
    assert len(write_txt(PLAIN).splitlines()) == 3


def test_silence_gives_valid_files():
    silence = Transcript("en", 3.0, ())
    assert write_txt(silence) == "" and write_srt(silence) == ""
    assert write_vtt(silence) == "WEBVTT\n\n"
    assert json.loads(write_json(silence, "a"))["segments"] == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
