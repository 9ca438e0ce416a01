"""A resumed run's metrics file is that of an uninterrupted one; a mean weighs every token once."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.errors import InputError, IntegrityError
from fastwhisper_jax.training.loop import LogInterval
from fastwhisper_jax.training.metrics import MetricsLog, reduce_pairs


def log(run_dir, steps, resumed_step=None):
    with MetricsLog(run_dir, resumed_step) as metrics:
        for step in steps:
            metrics.write(step, {"loss": jnp.float32(1 / step), "learning_rate": 3e-4, "rows": 8})


def text(run_dir):
    return (run_dir / "metrics.jsonl").read_text()


def test_mean_over_steps_equals_mean_over_all_tokens():
    rng = np.random.default_rng(0)
    tokens = [rng.normal(size=n).astype(np.float32) for n in (3, 50, 7)]
    steps = [{"loss": (jnp.sum(t), jnp.float32(t.size)), "norm": (2.0, 1)} for t in tokens]
    reduced = reduce_pairs(steps)
    np.testing.assert_allclose(reduced["loss"], np.concatenate(tokens).mean(), rtol=1e-6)
    assert reduced["norm"] == 2.0


def test_a_term_that_some_updates_leave_out_is_the_mean_over_the_others():
    steps = [{"kl": (6.0, 4.0)}, {"kl": (0.0, 0.0)}, {"kl": (2.0, 4.0)}]
    assert reduce_pairs(steps)["kl"] == 1.0


def test_mean_of_nothing_is_nan():
    assert math.isnan(reduce_pairs([{"loss": (0.0, 0.0)}])["loss"])
    assert reduce_pairs([]) == {}


def test_one_object_a_step_with_short_numbers(tmp_path):
    with MetricsLog(tmp_path) as metrics:
        metrics.write(1, {"loss": jnp.float32(0.3), "samples": np.int64(8), "wer": float("nan")})
    assert text(tmp_path) == '{"step": 1, "loss": 0.3, "samples": 8, "wer": null}\n'


def test_a_row_over_several_updates_has_short_numbers_too(tmp_path):
    interval = LogInterval()
    weights = {"ce_weight": 0.8, "learning_rate": 3e-4, "loss": 0.1, "grad_norm": 0.7}
    for _ in range(3):
        interval.add({name: (jnp.float32(x), jnp.ones(())) for name, x in weights.items()})
    row = interval.reduce(3, global_batch_size=8)
    with MetricsLog(tmp_path) as metrics:
        metrics.write(3, {name: row[name] for name in weights})
    assert json.loads(text(tmp_path)) == {"step": 3} | weights


def test_float32_is_written_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=50).astype(np.float32) * np.float32(1e-7)
    with MetricsLog(tmp_path) as metrics:
        for step, value in enumerate(values):
            metrics.write(step, {"loss": value})
    read = [json.loads(line)["loss"] for line in text(tmp_path).splitlines()]
    np.testing.assert_array_equal(np.float32(read), values)


@pytest.mark.parametrize("killed_after", [4, 5, 9])
def test_resumed_equals_uninterrupted(tmp_path, killed_after):
    log(tmp_path / "whole", range(1, 11))
    log(tmp_path / "resumed", range(1, killed_after + 1))
    with (tmp_path / "resumed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    log(tmp_path / "resumed", range(5, 11), resumed_step=4)
    assert text(tmp_path / "resumed") == text(tmp_path / "whole")


def test_a_new_run_starts_empty(tmp_path):
    log(tmp_path, range(1, 4))
    log(tmp_path, range(2, 4))
    assert [json.loads(line)["step"] for line in text(tmp_path).splitlines()] == [2, 3]


def test_resuming_without_a_file_starts_one(tmp_path):
    log(tmp_path / "run", [6], resumed_step=5)
    assert len(text(tmp_path / "run").splitlines()) == 1


def test_every_line_is_on_disk_before_the_log_is_closed(tmp_path):
    metrics = MetricsLog(tmp_path)
    metrics.write(1, {"loss": 1.0})
    assert json.loads(text(tmp_path)) == {"step": 1, "loss": 1.0}
    metrics.close()


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(IntegrityError, match=r"metrics.jsonl:2 "):
        MetricsLog(tmp_path, resumed_step=3)


def test_a_run_directory_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write metrics"):
        MetricsLog(tmp_path / "file" / "run")


def test_tensorboard_holds_every_finite_value_and_nothing_is_printed(tmp_path, capfd):
    log(tmp_path, range(1, 4))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert content.count(b"loss") == 3
    assert content.count(b"learning_rate") == 3
    assert capfd.readouterr() == ("", "")
