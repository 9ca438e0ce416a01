"""A dataclass of arguments becomes the arguments of a command."""

import dataclasses
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Annotated, Literal

import pytest

from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.parser import arguments_of, make_parser, near_option


@dataclasses.dataclass(frozen=True)
class Sing:
    """Sing songs.

    example:
      fastwhisper sing a b --loud
    """

    songs: Annotated[tuple[str, ...], "SONG", "what to sing"]
    _: KW_ONLY
    key: Annotated[Literal["c", "d"] | None, None, "key; default: the song's"] = None
    times: Annotated[int, "N", "how often"] = 1
    until: Annotated[float | None, "S", "seconds"] = None
    out: Annotated[Path, "FILE", "recording"] = Path("song.flac")
    loud: Annotated[bool, None, "sing loudly"] = False
    rests: Annotated[bool, None, "leave out rests"] = True


def parsed(*words, arguments=Sing):
    parser, _ = make_parser({"sing": arguments})
    return arguments_of(parser.parse_args(["sing", *words]), arguments)


def test_positional_fields_are_positional_and_the_others_are_options():
    assert parsed("a") == Sing(("a",))
    given = ("a", "b", "--key", "d", "--times=3", "--until", "2.5", "--out", "x.flac")
    assert parsed(*given) == Sing(("a", "b"), key="d", times=3, until=2.5, out=Path("x.flac"))


def test_a_flag_turns_its_default_over():
    assert parsed("a", "--loud", "--no-rests") == Sing(("a",), loud=True, rests=False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "the following arguments are required: SONG; see fastwhisper sing --help"),
        (["a", "--key", "e"], "argument --key: invalid choice: 'e'"),
        (["a", "--times", "1.5"], "argument --times: invalid int value: '1.5'"),
        (["a", "--out", "s3://x"], "argument --out: s3://x is not a local path"),
        (["a", "--tim", "3"], "unrecognized arguments: --tim 3"),
    ],
)
def test_what_does_not_fit_a_type_is_refused(words, line):
    with pytest.raises(InputError) as raised:
        parsed(*words)
    assert line in str(raised.value)


def test_help_is_made_of_docstring_and_annotations():
    parser, commands = make_parser({"sing": Sing})
    assert "    sing      sing songs\n" in parser.format_help()
    text = commands["sing"].format_help()
    assert "\nSing songs.\n" in text and "\nexample:\n  fastwhisper sing a b --loud\n" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert {
        "SONG what to sing",
        "--key {c,d} key; default: the song's",
        "--times N how often; default: 1",
        "--no-rests leave out rests",
    } <= set(lines)


def test_the_near_option_is_found():
    assert near_option("--tims", Sing) == "--times"
    assert near_option("--no-rest", Sing) == "--no-rests"
    assert near_option("--zzz", Sing) is None


def test_the_negative_flags_of_transcribe_turn_off_what_is_on():
    words = ("m", "a", "b", "--cut", "pauses", "--no-fallback", "--no-previous-text")
    assert parsed(*words, arguments=TranscribeArguments) == TranscribeArguments(
        "m", ("a", "b"), cut="pauses", fallback=False, previous_text=False
    )
