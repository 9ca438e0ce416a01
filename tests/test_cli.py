import os
import re
import signal
import time

import pytest

from fastwhisper_jax.commands import evaluate, export, plot, prepare, train, transcribe
from fastwhisper_jax.errors import IntegrityError, Interrupted, TrainingError


@pytest.fixture(scope="module")
def commands(fastwhisper):
    """The names of the commands, read from the help."""
    return re.findall(r"^    ([a-z-]+)\s", fastwhisper("--help").out, re.MULTILINE)


def test_help_shows_an_example(fastwhisper, commands):
    done = fastwhisper("--help")
    assert (done.code, done.err) == (0, "")
    assert "\nexample:\n  fastwhisper " in done.out
    assert {"train", "evaluate", "export"} <= set(commands)


def test_help_of_every_command_shows_an_example_that_starts_with_it(fastwhisper, commands):
    for command in commands:
        done = fastwhisper(command, "--help")
        assert (done.code, done.err) == (0, "")
        assert f"\nexample:\n  fastwhisper {command} " in done.out


def test_help_of_train_shows_the_fields_with_the_recipes_values(fastwhisper, tiny_recipe):
    defaults = fastwhisper("train", "--help").out
    own = fastwhisper("train", tiny_recipe, "--help").out
    assert "--training.global_batch_size  int  [8]" in defaults and "[default]" in defaults
    assert "  --training.steps  int or none  [none]" in defaults
    assert "  --training.steps  int or none  [8]" in own and f"[value in {tiny_recipe}]" in own


def test_no_command_shows_help_and_names_the_commands(fastwhisper, commands):
    done = fastwhisper()
    assert done.code == 2
    assert done.out.startswith("usage: fastwhisper")
    assert done.err == f"error: no command is given; choose one of {', '.join(commands)}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["evalute", "x"], "no command 'evalute'; did you mean evaluate?"),
        (["zzz"], "no command 'zzz'; choose one of train, evaluate, export"),
        (["--zzz"], "the following arguments are required: COMMAND; see fastwhisper --help"),
        (["--verbose", "evaluate", "m", "--data", "d"], "evaluate takes no '--verbose'; see"),
        (["-v", "train", "x.py", "--run-dir", "r", "--training.steps", "8"], "train takes no '-v'"),
        (["--verbose", "trian"], "no command 'trian'; did you mean train?"),
        (["train"], "required: RECIPE.py, --run-dir; see fastwhisper train --help"),
        (["export", "r"], "arguments are required: --out; see fastwhisper export --help"),
        (["evaluate", "m", "--data", "d", "--limt", "3"], "no '--limt'; did you mean --limit?"),
        (["evaluate", "m", "--data", "d", "--qq=3"], "'--qq'; see fastwhisper evaluate --help"),
        (["evaluate", "m", "n", "--data", "d"], "evaluate takes no 'n'; see"),
        (["evaluate", "m", "--data", "d", "--limit", "x"], "--limit: invalid int value: 'x'"),
        (["evaluate", "m", "--data", "d", "--normalizer", "x"], "invalid choice: 'x'"),
        (
            ["train", "r.py", "--run-dir", "x", "--learning_rate", "1"],
            "train takes no '--learning_rate'; did you mean --optimizer.learning_rate?",
        ),
        (["train", "r.py", "--run-dir", "x", "--run-dirr", "y"], "did you mean --run-dir?"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_one_line_and_2(fastwhisper, arguments, line):
    done = fastwhisper(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert line in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "r", "--out"],
        ["evaluate", "m", "--data", "d", "--report"],
        ["plan", "r.py", "--topology", "v5e:2x4", "--report"],
        ["demo", "--out"],
        ["plot", "r", "--out"],
        ["transcribe", "m", "a.wav", "--out"],
    ],
)
def test_an_option_for_a_local_path_refuses_an_object_store(
    monkeypatch, fastwhisper, tmp_path, arguments
):
    monkeypatch.chdir(tmp_path)
    done = fastwhisper(*arguments, "gs://bucket/x")
    assert (done.code, done.out) == (2, "")
    assert f"argument {arguments[-1]}: gs://bucket/x is not a local path; write to a" in done.err
    assert done.err.count("\n") == 1 and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TrainingError("loss is\nnan"), 1, "error: loss is nan\n"),
        (IntegrityError("damaged"), 1, "error: damaged\n"),
        (Interrupted("stopped"), 75, "interrupted: stopped\n"),
        (KeyboardInterrupt(), 75, "interrupted: what is complete is kept; give the same command"),
    ],
)
def test_a_foreseen_error_is_one_line_and_sets_the_exit_code(
    monkeypatch, fastwhisper, tiny_recipe, tmp_path, error, code, line
):
    def fail(*_):
        raise error

    monkeypatch.setattr(train, "run", fail)
    done = fastwhisper("train", tiny_recipe, "--run-dir", tmp_path / "run")
    assert done.code == code and done.err.startswith(line) and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        (evaluate, ["evaluate", "m", "--data", "d"], "nothing was written"),
        (export, ["export", "r", "--out", "x"], "nothing was written"),
        (plot, ["plot", "r", "--out", "x.png"], "nothing was written"),
        (prepare, ["prepare", "d", "--out", "x"], "what is complete is kept; give the same"),
        (transcribe, ["transcribe", "m", "a.wav"], "what was written is whole; the same command"),
    ],
)
def test_the_line_of_an_interrupt_says_what_was_kept(
    monkeypatch, fastwhisper, module, arguments, line
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", interrupt)
    done = fastwhisper(*arguments)
    assert done.code == 75 and done.err.startswith(f"interrupted: {line}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_the_loop_ends_the_command_with_75(
    monkeypatch, fastwhisper, tiny_recipe, tmp_path, number
):
    """Such a time is when models are loaded, the cache is filled, or a model is evaluated."""

    def wait(*_):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(train, "run", wait)
    before = signal.getsignal(signal.SIGTERM)
    done = fastwhisper("train", tiny_recipe, "--run-dir", tmp_path / "run")
    assert done.code == 75 and done.err.startswith("interrupted: ")
    assert signal.getsignal(signal.SIGTERM) == before
