"""A model of several windows from its recipe to its transcripts, in this process."""

import functools
import json
import re

import jax
import numpy as np
import pytest
import soundfile

from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.commands import transcribe
from fastwhisper_jax.export.hf_load import load_model
from fastwhisper_jax.models import whisper

RATE = 16_000
SECONDS = (3.0, 0.5, 4.5, 1.2, 0.6, 3.2, 1.0, 5.0, 0.7)
WINDOWS = {"seconds": [2.0, 4.0, 30.0], "margin_seconds": 0.5}
NEEDED = {2.0: (0.5, 1.2, 0.6, 1.0, 0.7), 4.0: (3.0, 3.2), 30.0: (4.5, 5.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("windows")


@pytest.fixture(scope="module")
def manifest(folder):
    """Recordings that need each of the windows."""
    (folder / "speech").mkdir()
    generator = np.random.default_rng(0)
    lines = []
    for index, seconds in enumerate(SECONDS):
        times = np.arange(round(seconds * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * 150 * (index + 1) * times)
        noise = generator.normal(scale=0.01, size=times.shape)
        soundfile.write(folder / "speech" / f"{index}.wav", tone + noise, RATE)
        lines.append(json.dumps({"audio": f"{index}.wav", "text": "one", "id": f"u{index}"}))
    path = folder / "speech" / "all.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def name_windows(model, windows=WINDOWS):
    """Names the windows of a model in its config.json, as an export does."""
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fastwhisper_windows": windows}))
    return model


@pytest.fixture(scope="module")
def model(folder, write_teacher, make_params, dims_with_timestamps):
    """A model of random weights that hears windows of 2, 4 and 30 s."""
    dims = dims_with_timestamps
    return name_windows(write_teacher(folder / "model", dims, make_params(dims)))


@pytest.fixture
def heard(monkeypatch):
    """The shapes (B, L, M) of what an encoder has been given; a program is compiled once each."""
    shapes, encode = [], whisper.encode

    @functools.wraps(encode)
    def encode_and_note(params, dims, log_mel, *rest):
        shapes.append(log_mel.shape)
        return encode(params, dims, log_mel, *rest)

    monkeypatch.setattr(whisper, "encode", encode_and_note)
    return shapes


@pytest.fixture
def evaluate(fastwhisper, model, manifest, tmp_path):
    """A function of options to the texts by id; what is given in `only` is evaluated."""

    def evaluate(*options, only=None):
        data = manifest
        if only is not None:
            lines = manifest.read_text().splitlines()
            data = manifest.with_name("some.jsonl")
            data.write_text("\n".join(lines[index] for index in only) + "\n")
        given = ("--data", data, "--max-new-tokens", 6, "--report", tmp_path / "report.json")
        done = fastwhisper("evaluate", model, *given, *options)
        assert done.code == 0, done.err
        rows = (tmp_path / "report.hypotheses.jsonl").read_text().splitlines()
        return {row["id"]: row["hypothesis"] for row in map(json.loads, rows)}

    return evaluate


def test_evaluation_hears_each_utterance_in_its_own_window(evaluate, heard):
    texts = evaluate()
    assert list(texts) == [f"u{index}" for index in range(len(SECONDS))]
    assert [frames for _, frames, _ in heard] == [3000, 400, 200]
    heard.clear()
    in_long = evaluate("--window", 30)
    assert [frames for _, frames, _ in heard] == [3000]
    needs_long = [f"u{SECONDS.index(seconds)}" for seconds in NEEDED[30.0]]
    assert {name for name in texts if texts[name] == in_long[name]} >= {*needs_long}


def test_what_an_utterance_becomes_does_not_depend_on_the_others(evaluate):
    texts = evaluate()
    for index in (0, 3):
        assert evaluate(only=[index]) == {f"u{index}": texts[f"u{index}"]}


def test_an_utterance_that_the_chosen_window_does_not_hold_is_dropped(fastwhisper, model, manifest):
    given = ("--data", manifest, "--window", 4, "--max-new-tokens", 2)
    done = fastwhisper("evaluate", model, *given)
    assert done.code == 0 and "dropped 2 longer than 4 s" in done.err + done.out


def transcribed(model, *files, **fields):
    logged = []
    quick = {"fallback": False, "max_new_tokens": 6, "language": "en", "format": "json"}
    options = TranscribeArguments(str(model), tuple(map(str, files)), **quick | fields)
    assert transcribe.run(options, logged.append)
    return [json.loads(line) for line in logged]


@pytest.mark.parametrize("cut", ["timestamps", "pauses"])
def test_a_recording_of_three_seconds_is_heard_in_the_window_of_four(model, manifest, heard, cut):
    file = manifest.with_name("0.wav")
    transcribed(model, file, cut=cut)
    assert {frames for _, frames, _ in heard} == {400}
    heard.clear()
    transcribed(model, file, cut=cut, window=30.0)
    assert {frames for _, frames, _ in heard} == {3000}


def test_words_have_times_in_a_short_window(model, manifest):
    (found,) = transcribed(model, manifest.with_name("0.wav"), word_timestamps=True)
    words = [word for segment in found["segments"] for word in segment["words"]]
    assert words and all(0 <= word["start"] <= word["end"] <= 3.0 for word in words)


def test_recordings_of_several_windows_have_the_text_that_they_have_alone(model, manifest):
    files = [manifest.with_name(f"{index}.wav") for index in range(4)]
    together = transcribed(model, *files, batch_size=3)
    for file, found in zip(files, together, strict=True):
        (alone,) = transcribed(model, file)
        assert alone["text"] == found["text"]


@pytest.mark.parametrize("command", ["evaluate", "transcribe"])
def test_a_window_that_the_model_does_not_name_is_refused(fastwhisper, model, manifest, command):
    given = ("--data", manifest) if command == "evaluate" else (manifest.with_name("0.wav"),)
    done = fastwhisper(command, model, *given, "--window", 8)
    assert done.code == 2
    assert done.err == (
        "error: --window 8: the model hears windows of 2, 4 and 30 s; choose one of them\n"
    )


RECIPE = '''"""Windows of 2, 4 and 30 s."""

from fastwhisper_jax.config import *

config = Config(
    teacher=TeacherConfig(path={teacher!r}),
    student=StudentConfig(
        decoder_layers=1, windows_seconds=(2.0, 4.0, 30.0), margin_seconds=0.5
    ),
    data=DataConfig(
        train=({data!r},), eval=({data!r},), target_buckets=(16,), cache={cache!r}
    ),
    objective=ObjectiveConfig(teacher_weight=ScheduleConfig(init_value=1.0)),
    training=TrainingConfig(
        global_batch_size=8, epochs=2, log_every=1, eval_batch_size=8, max_new_tokens=4
    ),
)
'''


def test_a_student_is_trained_exported_and_evaluated_in_its_windows(
    fastwhisper, tiny_teacher, tiny_dims, manifest, folder, heard
):
    recipe, run_dir, out = folder / "recipe.py", folder / "run", folder / "exported"
    fields = {"teacher": str(tiny_teacher), "data": str(manifest), "cache": str(folder / "cache")}
    recipe.write_text(RECIPE.format(**fields))
    done = fastwhisper("train", recipe, "--run-dir", run_dir)
    assert done.code == 0, done.err
    expected = (
        "windows of 2, 4 and 30 s, with 0.5 s of margin; at most 3 compiled steps (windows x "
        "buckets x phases)"
    )
    assert expected in done.out.splitlines()
    # Only the caches have run an encoder: the student's in its windows, the teacher's in its own.
    assert sorted(frames for _, frames, _ in heard) == [200, 400, 3000, 3000]
    states = {np.load(path).shape[0] for path in (folder / "cache").glob("encoder-*/*.npy")}
    assert states == {100, 200, 1500}

    done = fastwhisper("export", run_dir, "--out", out)
    assert done.code == 0, done.err
    config = json.loads((out / "config.json").read_text())
    assert config["fastwhisper_windows"] == WINDOWS and config["max_source_positions"] == 1500
    assert json.loads((out / "preprocessor_config.json").read_text())["chunk_length"] == 30
    assert "the shortest of 2, 4 and 30 seconds" in (out / "README.md").read_text()
    loaded = load_model(out)
    assert loaded.windows == Windows((2.0, 4.0, 30.0), 0.5)
    assert loaded.dims.n_audio_ctx == tiny_dims.n_audio_ctx
    teacher = load_model(tiny_teacher).params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, loaded.params["encoder"], teacher)

    # The evaluation while training has heard the same windows.
    done = fastwhisper("evaluate", out, "--data", manifest, "--max-new-tokens", 4)
    assert done.code == 0, done.err
    logged = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    (wer,) = re.findall(r"WER ([\d.]+)%", done.out)
    assert float(wer) == pytest.approx(100 * logged["eval_wer"], abs=0.01)
