import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.commands import transcribe
from fastwhisper_jax.errors import InputError

N_SPECIAL_AND_BYTES = 262
RATE = 16_000
SECONDS = (0.3, 1.0, 31.0, 2.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory, write_teacher, make_params, dims_with_timestamps):
    """A model of random weights whose vocabulary has timestamps."""
    dims = dims_with_timestamps
    folder = tmp_path_factory.mktemp("models") / "with-timestamps"
    return str(write_teacher(folder, dims, make_params(dims)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(0)
    paths = []
    for index, seconds in enumerate(SECONDS):
        times = np.arange(round(seconds * RATE)) / RATE
        samples = 0.3 * np.sin(2 * np.pi * 200 * (index + 1) * times)
        samples += generator.normal(scale=0.01, size=times.shape)
        paths.append(str(folder / f"{index}.flac"))
        soundfile.write(paths[-1], samples, RATE)
    return tuple(paths)


def run(options):
    logged = []
    return transcribe.run(options, logged.append), logged


def quick(model, files, **fields):
    """Arguments for few tokens and greedy decoding, because random weights never end a text."""
    fields = {"fallback": False, "max_new_tokens": 6, "batch_size": 2, "language": "en"} | fields
    return TranscribeArguments(model, tuple(files), **fields)


def test_texts_of_several_files_have_headings_and_keep_their_order(model, files):
    done, logged = run(quick(model, files))
    assert done
    assert [line.splitlines()[0] for line in logged] == [f"{file}:" for file in files]


def test_a_file_alone_has_the_text_that_it_has_among_others(model, files):
    _, several = run(quick(model, files, format="json"))
    assert [json.loads(line)["file"] for line in several] == list(files)
    assert all("\n" not in line for line in several)
    for index in (1, 2):
        _, (alone,) = run(quick(model, files[index : index + 1], format="json"))
        content, expected = json.loads(alone), json.loads(several[index])
        assert content["text"] == expected["text"]
        assert content["duration"] == expected["duration"] == SECONDS[index]
        for ours, theirs in zip(content["segments"], expected["segments"], strict=True):
            assert ours["tokens"] == theirs["tokens"]
            np.testing.assert_allclose(ours["avg_logprob"], theirs["avg_logprob"], atol=1e-4)


@pytest.mark.parametrize("format", ["txt", "json"])
@pytest.mark.parametrize("to_folder", [False, True], ids=["printed", "to a folder"])
def test_a_name_that_is_not_utf_8_is_read_and_shown_by_its_bytes(
    model, files, tmp_path, format, to_folder
):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.flac")
    shutil.copy(files[1], odd)
    out = tmp_path / "out" if to_folder else None
    done, logged = run(quick(model, (odd, files[0]), format=format, out=out))
    assert done
    if to_folder:
        logged = [(out / os.fsdecode(b"caf\xe9.%s" % format.encode())).read_text()]
    "".join(logged).encode()
    if format == "json":
        assert json.loads(logged[0])["file"] == str(tmp_path / "caf\\udce9.flac")
    elif not to_folder:
        assert logged[0].startswith(str(tmp_path / "caf\\udce9.flac:\n"))


def test_unreadable_files_are_named_and_do_not_stop_the_rest(model, files, tmp_path, capsys):
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"nothing of the kind")
    given = (files[0], str(broken), str(tmp_path / "absent.wav"), files[1])
    done, logged = run(quick(model, given))
    assert not done
    assert [line.splitlines()[0] for line in logged] == [f"{files[0]}:", f"{files[1]}:"]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 2 and "broken.flac" in errors[0] and "absent.wav" in errors[1]


def test_a_file_that_fails_after_it_was_opened_is_named_too(model, files, tmp_path, capsys):
    damaged = tmp_path / "damaged.wav"
    soundfile.write(damaged, np.full(1600, np.nan, np.float32), RATE, subtype="FLOAT")
    done, logged = run(quick(model, (str(damaged), files[0])))
    assert not done and len(logged) == 1
    assert "damaged.wav" in capsys.readouterr().err


def test_a_call_without_a_readable_file_is_bad_input(tmp_path):
    absent = str(tmp_path / "absent.wav")
    with pytest.raises(InputError, match="^there is no file .*absent.wav"):
        run(quick("no model is loaded", [absent]))
    with pytest.raises(InputError, match="none of 2 files can be read.*absent.wav"):
        run(quick("no model is loaded", [absent, absent]))


def test_a_model_that_cannot_be_loaded_leaves_no_folder(files, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run(quick(str(tmp_path / "nowhere"), files, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["txt", "json", "srt", "vtt"])
def test_a_folder_gets_a_whole_file_for_each(model, files, tmp_path, format):
    out = tmp_path / "new" / "folder"
    done, logged = run(quick(model, files, format=format, out=out))
    assert done and not logged
    assert sorted(os.listdir(out)) == [f"{i}.{format}" for i in range(len(files))]
    if format == "json":
        written = json.loads((out / "2.json").read_text())
        assert written["file"] == files[2] and written["language"] == "en"


def test_subtitles_are_valid_by_other_parsers(model, files, tmp_path):
    srt, webvtt = pytest.importorskip("srt"), pytest.importorskip("webvtt")
    for format in ("srt", "vtt"):
        run(quick(model, files, format=format, out=tmp_path, word_timestamps=True))
    for index in range(len(files)):
        text = (tmp_path / f"{index}.srt").read_text(encoding="utf-8")
        cues = list(srt.parse(text, ignore_errors=False))
        assert len(webvtt.read(tmp_path / f"{index}.vtt")) == len(cues)


def test_words_are_within_the_recording(model, files):
    _, (logged,) = run(quick(model, files[2:3], format="json", word_timestamps=True))
    content = json.loads(logged)
    words = [word for segment in content["segments"] for word in segment["words"]]
    assert words
    for word in words:
        assert 0 <= word["start"] <= word["end"] <= SECONDS[2]


def test_the_language_is_detected_where_none_is_given(model, files):
    _, (logged,) = run(quick(model, files[:1], format="json", language=None))
    assert json.loads(logged)["language"] == "en"  # the vocabulary has no other language


def test_sampled_texts_are_the_same_at_every_call(model, files):
    options = quick(model, files[:2], format="json", fallback=True)
    assert run(options) == run(options)


def changed(model, folder, **generation):
    """A copy of the model with other fields in its generation_config.json."""
    folder.mkdir()
    for name in os.listdir(model):
        (folder / name).symlink_to(os.path.join(model, name))
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps(config | generation))
    return str(folder)


def stamps(logged):
    tokens = [token for segment in json.loads(logged)["segments"] for token in segment["tokens"]]
    return [token for token in tokens if token >= N_SPECIAL_AND_BYTES]


def test_a_model_trained_without_timestamps_writes_them_only_on_request(model, files, tmp_path):
    plain = changed(model, tmp_path / "plain", trained_with_timestamps=False)
    both = changed(model, tmp_path / "both", trained_with_timestamps=True)
    logged = {}
    for folder in (model, both, plain):
        for cut in (None, "timestamps", "pauses"):
            _, (logged[folder, cut],) = run(quick(folder, files[3:], format="json", cut=cut))
    assert stamps(logged[model, None]) and not stamps(logged[plain, None])
    for folder, default in ((model, "timestamps"), (both, "timestamps"), (plain, "pauses")):
        assert logged[folder, None] == logged[folder, default]
        assert logged[folder, "timestamps"] == logged[model, "timestamps"]
        assert logged[folder, "pauses"] == logged[model, "pauses"]


def test_a_vocabulary_without_timestamps_is_cut_at_pauses(tiny_teacher, files):
    options = quick(str(tiny_teacher), files[:1])
    assert run(options)[0]
    with pytest.raises(InputError, match="use --cut pauses"):
        run(dataclasses.replace(options, cut="timestamps"))


def test_speech_segments_between_pauses_have_their_own_times(model, files, tmp_path):
    """The recording is two seconds of sound, two of silence and one of sound."""
    sound, _ = soundfile.read(files[2], stop=3 * RATE)
    sound = np.concatenate([sound[: 2 * RATE], np.zeros(2 * RATE), sound[2 * RATE :]])
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    given = (str(tmp_path / "a.wav"), str(tmp_path / "silence.wav"))
    # Random weights would mostly write timestamps, which decoding without rules allows.
    text_only = list(range(N_SPECIAL_AND_BYTES, N_SPECIAL_AND_BYTES + 1501))
    plain = changed(model, tmp_path / "plain", suppress_tokens=text_only)
    done, logged = run(quick(plain, given, format="json", cut="pauses", language=None))
    first, second = json.loads(logged[0])["segments"]
    assert done and json.loads(logged[0])["language"] == "en"
    np.testing.assert_allclose([first["start"], first["end"]], [0.0, 2.2], atol=0.05)
    np.testing.assert_allclose([second["start"], second["end"]], [3.8, 5.0], atol=0.05)
    assert json.loads(logged[1])["segments"] == []


def test_beams_are_searched(model, files):
    options = quick(model, files[:2], format="json")
    assert run(dataclasses.replace(options, beam=3)) != run(options)


def test_word_timestamps_need_alignment_heads(model, files, tmp_path):
    for number, heads in enumerate((None, [[7, 0]])):
        folder = changed(model, tmp_path / str(number), alignment_heads=heads)
        with pytest.raises(InputError, match="alignment_heads.*--word-timestamps"):
            run(quick(folder, files[:1], format="json", word_timestamps=True))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"batch_size": 0}, "--batch-size 0"),
        ({"beam": 0}, "--beam 0"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"word_timestamps": True}, "--word-timestamps"),
        ({"format": "srt"}, "--out DIR"),
        ({"language": "klingon"}, "klingon"),
    ],
)
def test_unusable_options_are_named(model, files, fields, reason):
    with pytest.raises(InputError, match=reason):
        run(quick(model, files, **fields))


def test_files_of_one_stem_keep_their_ending_in_the_output(model, files, tmp_path):
    other = tmp_path / "0.wav"
    soundfile.write(other, np.zeros(1600), RATE)
    out = tmp_path / "out"
    run(quick(model, (files[0], str(other)), out=out))
    assert sorted(os.listdir(out)) == ["0.flac.txt", "0.wav.txt"]
    with pytest.raises(InputError, match="2 files are called 0.flac"):
        run(quick(model, (files[0], files[0]), out=out))


def test_an_interrupt_leaves_nothing_half_written(model, files, tmp_path):
    script = """
import sys
from pathlib import Path
from fastwhisper_jax.commands import transcribe
from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.transcription import long_form
before = long_form._decode_round
def slow(*arguments):
    before(*arguments)
    print("round", flush=True)
    import time; time.sleep(30)
long_form._decode_round = slow
try:
    transcribe.run(TranscribeArguments(sys.argv[1], tuple(sys.argv[3:]), out=Path(sys.argv[2]),
        language="en", fallback=False, max_new_tokens=4), print)
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", script, model, str(tmp_path / "out"), *files]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "round\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    logged, errors = process.communicate(timeout=60)
    assert logged == "interrupted\n" and "Traceback" not in errors
    assert os.listdir(tmp_path / "out") == []
