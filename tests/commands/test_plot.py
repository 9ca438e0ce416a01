"""Plots are drawn from the metrics of runs, finished or not."""

import json
import re
import sys

import pytest

from fastwhisper_jax.cli import main


def write_run(folder, rows):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run_dir(tmp_path):
    rows = [
        {"step": step, "loss": 9.0 / step, "ce": 3.0 / step, "kl_self": 0.0, "learning_rate": 1e-4}
        | {"teacher_weight": 1.0, "self_weight": 0.0, "ce_weight": 0.8, "kl_teacher": None}
        | ({"eval_wer": 12.0 / step} if step % 2 == 0 else {})
        for step in range(1, 7)
    ]
    return write_run(tmp_path / "first", rows)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_one_and_several_runs_are_drawn(run_dir, tmp_path, ending, capsys):
    other = write_run(tmp_path / "second", [{"step": 1, "loss": 2.0}])
    for name, runs in (("one", [run_dir]), ("two", [run_dir, other])):
        out = tmp_path / f"{name}.{ending}"
        assert main(["plot", *map(str, runs), "--out", str(out)]) == 0
        assert out.stat().st_size > 10_000
    assert (tmp_path / f"one.{ending}").read_bytes() != (tmp_path / f"two.{ending}").read_bytes()


def test_every_eval_set_and_the_ema_have_a_line_with_a_name(run_dir, tmp_path):
    rates = {"far/eval_wer": 0.5, "near/eval_wer": 0.3, "ema/far/eval_wer": 0.4}
    rows = [{"step": step, "loss": 1.0, "eval_wer": 0.2} | rates for step in (0, 1, 2)]
    out = tmp_path / "sets.svg"
    assert main(["plot", str(write_run(tmp_path / "sets", rows)), "--out", str(out)]) == 0
    drawn = set(re.findall("<!-- (.*) -->", out.read_text()))
    assert {"WER", "WER far", "WER near", "WER ema/far"} <= drawn and "CER" not in drawn


def test_a_line_that_is_being_written_is_left_out(run_dir, tmp_path):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    assert main(["plot", str(run_dir), "--out", str(tmp_path / "out.png")]) == 0


def test_a_folder_without_metrics_and_an_unwritable_picture_are_bad_input(
    run_dir, tmp_path, capsys
):
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "out.png")]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err
    assert main(["plot", str(run_dir), "--out", str(tmp_path / "absent" / "out.png")]) == 2
    assert main(["plot", str(run_dir), "--out", str(tmp_path / "out.xyz")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.startswith("error: ") for line in errors)


def test_the_error_about_missing_matplotlib_says_how_to_install_it(
    monkeypatch, run_dir, tmp_path, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", str(run_dir), "--out", str(tmp_path / "out.png")]) == 2
    assert "; pip install '.[plot]' in the folder of this project" in capsys.readouterr().err
