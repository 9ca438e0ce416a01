"""The commands, run as processes, print their own lines and nothing else."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.compiler_flags import compiler_flags

OWN_LINES = re.compile(
    r"(train|evaluate): \d+/\d+ (steps|utterances), .*"
    r"|\S+\.jsonl: 8 utterances, .*"
    r"|interrupted: stopped after step \d+ of \d+, which is saved; .*"
)
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from fastwhisper_jax.cli import main; sys.exit(main())",
]


def start(*arguments):
    environment = os.environ | {"XLA_FLAGS": compiler_flags(1)}
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def foreign_lines(lines):
    return [line for line in lines.splitlines() if not OWN_LINES.fullmatch(line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def interrupted(tiny_recipe, folder):
    """The folder, exit code, output and errors of a run that Ctrl-C stopped."""
    run_dir = folder / "run"
    with start("train", tiny_recipe, "--run-dir", run_dir, "--training.steps", 100_000) as process:
        metrics = run_dir / "metrics.jsonl"
        while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    return run_dir, process.returncode, out, err


def test_ctrl_c_during_training_saves_and_leaves_no_traceback(interrupted):
    run_dir, code, out, err = interrupted
    assert code == 75, err
    assert foreign_lines(err) == []
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert len(out.splitlines()) == 4 and out.startswith("teacher: ")
    assert list((run_dir / "checkpoints").iterdir())


def test_export_and_evaluate_print_only_their_own_lines(interrupted, tiny_manifest, folder):
    out_dir = folder / "exported"
    process = start("export", interrupted[0], "--out", out_dir)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(rf"exported step \d+ of .* to {out_dir}\n", out)

    options = ("--max-new-tokens", 8, "--dtype", "bfloat16")
    process = start("evaluate", out_dir, "--data", tiny_manifest, *options)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert foreign_lines(err) == []
    assert len(out.splitlines()) == 5 and "WER" in out
