"""Training with timestamps, from the recipe's field to the segments of a transcript."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

SPOKEN = ((0.6, "a"), (1.4, "b"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, write_teacher, make_params, dims_with_timestamps):
    """Random weights, and a vocabulary with timestamps."""
    dims = dataclasses.replace(dims_with_timestamps, n_text_mlp=32)
    return write_teacher(tmp_path_factory.mktemp("models") / "teacher", dims, make_params(dims))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    lines = []
    for index, (seconds, text) in enumerate(SPOKEN):
        times = np.arange(round(seconds * 16_000)) / 16_000
        soundfile.write(folder / f"{index}.wav", 0.3 * np.sin(2e3 * (index + 1) * times), 16_000)
        lines.append(json.dumps({"audio": f"{index}.wav", "text": text, "id": f"u{index}"}))
    (folder / "speech.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "speech.jsonl"


@pytest.fixture(scope="module")
def recipe(teacher, manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    path = folder / "timestamps.py"
    path.write_text(f"""
from fastwhisper_jax.config import *

config = Config(
    teacher=TeacherConfig(path={str(teacher)!r}),
    student=StudentConfig(decoder_layers=1, frozen=("encoder",)),
    data=DataConfig(
        train=({str(manifest)!r},),
        target_buckets=(16,),
        timestamp_probability=1.0,
        cache={str(folder / "cache")!r},
    ),
    objective=ObjectiveConfig(teacher_weight=ScheduleConfig(init_value=0.0)),
    optimizer=OptimizerConfig(learning_rate=3e-2),
    training=TrainingConfig(steps=80, log_every=40, save_every=0),
)
""")
    return path


def test_a_student_trained_with_timestamps_writes_them(recipe, manifest, fastwhisper, tmp_path):
    trained = fastwhisper("train", recipe, "--run-dir", tmp_path / "run")
    assert trained.code == 0, trained.err
    exported = fastwhisper("export", tmp_path / "run", "--out", tmp_path / "student")
    assert exported.code == 0, exported.err
    generation = json.loads((tmp_path / "student" / "generation_config.json").read_text())
    assert generation["trained_with_timestamps"] is True
    files = [manifest.parent / f"{index}.wav" for index in range(len(SPOKEN))]
    said = fastwhisper("transcribe", tmp_path / "student", *files, "--format", "json")
    assert said.code == 0, said.err
    for line, (seconds, text) in zip(said.out.splitlines(), SPOKEN, strict=True):
        (segment,) = json.loads(line)["segments"]
        assert (segment["start"], segment["end"], segment["text"]) == (0.0, seconds, text)


def test_a_vocabulary_without_timestamps_is_bad_input(tiny_recipe, fastwhisper, tmp_path):
    run_dir = tmp_path / "run"
    done = fastwhisper(
        "train", tiny_recipe, "--run-dir", run_dir, "--data.timestamp_probability", "0.5"
    )
    assert done.code == 2 and "data.timestamp_probability" in done.err
    assert not run_dir.exists()
