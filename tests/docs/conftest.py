"""The files that README.md and docs/ name, in a tiny size and under the same names."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

ROOT = Path(__file__).parents[2]
# Parts of the checkout that a command may name.
OF_THE_CHECKOUT = ("README.md", "setup.cfg", "configs", "benchmarks", "docs", "launch", "runs")
RATE = 16_000
BYTES_AND_SPECIAL, TIMESTAMPS = 262, 1501
# One token a letter, and all texts in the shortest bucket of the recipes: one compilation.
TEXTS = ("Hello.", "Hold on.", "Press one.", "Press two.", "Good day.", "Call back.", "Goodbye.")
DIGITS = ("one two", "nine", "four five", "six")

# Whisper-base in small. A folder is used rather than the hub id of the same name.
TEACHERS = {
    "openai/whisper-base": ModelDimensions(
        n_mels=8,
        n_audio_ctx=1500,
        n_audio_head=1,
        n_audio_layer=1,
        n_audio_mlp=16,
        n_vocab=BYTES_AND_SPECIAL + TIMESTAMPS,
        n_text_ctx=128,
        n_text_head=2,
        n_text_layer=3,
        n_text_mlp=16,
        n_state=16,
    )
}


@pytest.fixture(scope="session")
def start(tmp_path_factory, write_teacher, make_params) -> Path:
    """The folder in which a reader begins; tests copy it."""
    folder = tmp_path_factory.mktemp("reader") / "start"
    folder.mkdir()
    for name in OF_THE_CHECKOUT:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    for name, dims in TEACHERS.items():
        write_teacher(folder / name, dims, make_params(dims))
    calls = _recordings(folder / "calls", TEXTS)
    _write_manifest(folder / "train.jsonl", calls[1:])  # as docs/own-audio.md divides them
    for name in ("dev.jsonl", "test.jsonl"):
        _write_manifest(folder / name, calls[:1])
    _write_manifest(folder / "digits.jsonl", _recordings(folder / "digits", DIGITS))
    with (folder / "transcripts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "text"), *((Path(c).name, t) for c, t in calls)])
    _write_parquet(folder / "calls.parquet", folder, calls)
    for name in ("speech.wav", "talk.flac", "interview.mp3"):
        soundfile.write(folder / name, _noise(2.0, seed=len(name)), RATE)
    return folder


def _recordings(folder: Path, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Writes a recording for each text: pairs of its path from the reader's folder, and text."""
    folder.mkdir()
    for index in range(len(texts)):
        soundfile.write(folder / f"{index + 1:04}.flac", _noise(0.5 + 0.1 * index, index), RATE)
    return [(f"{folder.name}/{index + 1:04}.flac", text) for index, text in enumerate(texts)]


def _noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * RATE))


def _write_manifest(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"audio": audio, "text": text, "language": "en"}) for audio, text in rows]
    path.write_text("\n".join(lines) + "\n")


def _write_parquet(path: Path, folder: Path, rows: list[tuple[str, str]]) -> None:
    audio = [{"bytes": (folder / name).read_bytes(), "path": name} for name, _ in rows]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = {"audio": pyarrow.array(audio, kind), "text": [text for _, text in rows]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
