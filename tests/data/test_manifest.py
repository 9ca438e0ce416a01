import json

import pytest

from fastwhisper_jax.data.manifest import Utterance, read_manifest
from fastwhisper_jax.errors import InputError


def test_fields_are_read_and_audio_is_relative_to_the_manifest(tmp_path):
    lines = [
        {
            "audio": "audio/a.wav",
            "text": "Grüße",
            "language": "de",
            "id": "a",
            "duration": 3.2,
            "offset": 1,
        },
        {"audio": str(tmp_path / "b.wav"), "text": None, "speaker": "kept out"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    assert read_manifest(path) == [
        Utterance("a", str(tmp_path / "audio/a.wav"), "Grüße", "de", 1.0, 3.2),
        Utterance(str(tmp_path / "b.wav"), str(tmp_path / "b.wav")),
    ]


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\r\n')
    assert read_manifest(path)[0].id == "a.wav"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{audio: a.wav}", "is not JSON"),
        ('{"audio": "a.wav"', "is not JSON"),
        ("hello", "is not JSON"),
        ('["a.wav"]', "must be a JSON object"),
        ("{}", 'has no "audio"'),
        ('{"audio": ""}', 'has no "audio"'),
        ('{"audio": 3}', '"audio" is 3'),
        ('{"audio": "a.wav", "text": 12}', '"text" is 12; it must be a string'),
        ('{"audio": "a.wav", "language": ["en"]}', '"language" is'),
        (r'{"audio": "a.wav", "text": "so \ud83d"}', r""""text" holds '\ud83d', which is half"""),
        (r'{"audio": "\udce9.wav"}', r""""audio" holds '\udce9'"""),
        ('{"audio": "a.wav", "offset": -1}', '"offset" is -1; it must be a number of seconds'),
        ('{"audio": "a.wav", "offset": true}', '"offset" is true'),
        ('{"audio": "a.wav", "duration": "3"}', '"duration" is "3"'),
        ('{"audio": "a.wav", "duration": NaN}', '"duration" is NaN'),
        ('{"audio": "a.wav", "duration": 0}', '"duration" is 0'),
    ],
)
def test_a_bad_line_is_named_in_one_line(tmp_path, line, says):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "fine.wav"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2")
    assert says in message
    assert "\n" not in message


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes('{"audio": "é.wav"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"m\.jsonl:1 is not JSON \(not UTF-8\)"):
        read_manifest(path)


def test_a_character_that_json_escapes_as_a_surrogate_pair_is_read(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(r'{"audio": "a.wav", "text": "\ud83d\ude00"}')
    assert read_manifest(path)[0].text == "\N{GRINNING FACE}"


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_an_empty_manifest_is_an_input_error(tmp_path, content):
    path = tmp_path / "m.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="is empty"):
        read_manifest(path)


def test_a_missing_manifest_and_a_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="directory"):
        read_manifest(tmp_path)
