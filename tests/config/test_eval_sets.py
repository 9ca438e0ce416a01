"""Eval sets: entries of `data.eval` that share a name are one set, and paths may hold "="."""

import pytest

from fastwhisper_jax.config import DataConfig
from fastwhisper_jax.config.eval_sets import join_source, split_source
from fastwhisper_jax.errors import InputError

PATHS = ("a.jsonl", "/data/snr=5/a.jsonl", "./snr=5.jsonl", "gs://bucket/a=b", "owner/dataset")


def test_entries_of_one_name_are_one_set_in_the_order_given():
    data = DataConfig(eval=("far=b.jsonl", "a.jsonl", "far=c.jsonl", "near=d=e.jsonl", "f.jsonl"))
    assert list(data.eval_sets.items()) == [
        ("far", ("b.jsonl", "c.jsonl")),
        ("", ("a.jsonl", "f.jsonl")),
        ("near", ("d=e.jsonl",)),
    ]
    assert DataConfig().eval_sets == {}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_may_hold_an_equals_sign(path):
    assert DataConfig(eval=(path,)).eval_sets == {"": (path,)}
    assert DataConfig(eval=(f"dev-1={path}",)).eval_sets == {"dev-1": (path,)}


@pytest.mark.parametrize("entry", [*PATHS, *(f"dev={path}" for path in PATHS)])
def test_an_entry_is_put_together_again(entry):
    assert join_source(*split_source(entry)) == entry


@pytest.mark.parametrize("entry", ["=a.jsonl", "in domain=a.jsonl", "dev=", "ema=a.jsonl", ".=a"])
def test_a_name_that_no_metric_can_have_is_refused(entry):
    with pytest.raises(InputError, match=r"must hold paths, or NAME=PATH .*; begin a path that"):
        DataConfig(eval=("a.jsonl", entry))


def test_a_source_is_in_a_named_set_once_but_may_be_in_two():
    assert len(DataConfig(eval=("all=a", "far=a", "all=b", "a", "a")).eval_sets) == 3
    with pytest.raises(InputError, match="must name each source of a set once, not far=a twice"):
        DataConfig(eval=("far=a", "all=a", "far=a"))
