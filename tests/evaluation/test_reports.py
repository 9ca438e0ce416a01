import dataclasses
import json
import os

import pytest
from support.reports import REPORT

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.evaluation.evaluate import Report, TranscribedUtterance
from fastwhisper_jax.evaluation.reports import check_report_path, hypotheses_path, write_report

UTTERANCES = [
    TranscribedUtterance("a", "año\nnuevo", "ano", 3.0),
    TranscribedUtterance("b", "", "you " * 99, 1.0, loops=True),
]


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "out.json"
    write_report(REPORT, UTTERANCES, path)
    assert Report(**json.loads(path.read_text())) == REPORT
    lines = (tmp_path / "new" / "out.hypotheses.jsonl").read_text().splitlines()
    assert [TranscribedUtterance(**json.loads(line)) for line in lines] == UTTERANCES
    assert sorted(p.name for p in path.parent.iterdir()) == ["out.hypotheses.jsonl", "out.json"]


def test_a_failed_write_leaves_the_old_report_whole(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    write_report(REPORT, UTTERANCES, path)

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(dataclasses.replace(REPORT, wer=1.0), [], path)
    assert json.loads(path.read_text())["wer"] == 0.25
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["out.json", "out", "out.v2.json"])
def test_the_hypotheses_are_written_beside_the_report(tmp_path, name):
    path = hypotheses_path(tmp_path / name)
    assert path == tmp_path / (name.removesuffix(".json") + ".hypotheses.jsonl")


def test_a_path_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "out.json", tmp_path):
        with pytest.raises(InputError, match="cannot be written"):
            check_report_path(path)
    check_report_path(tmp_path / "not" / "yet" / "there" / "out.json")
    assert not (tmp_path / "not").exists()
