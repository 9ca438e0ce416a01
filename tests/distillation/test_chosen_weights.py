"""The EMA is exported only of a run that keeps one."""

from types import SimpleNamespace

import pytest

from fastwhisper_jax.config import Config
from fastwhisper_jax.distillation.chosen_weights import Choice, trained_params
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training.checkpoints import Restored


def test_a_run_that_learns_from_no_self_teacher_has_no_ema(tmp_path):
    state = SimpleNamespace(params={"x": 1}, self_teacher_params=None)
    restored = Restored(8, state, {}, ())
    assert trained_params(tmp_path, restored, ema=False) == {"x": 1}
    with pytest.raises(InputError, match=r"keeps no EMA: its objective\.self_weight is 0 in every"):
        trained_params(tmp_path, restored, ema=True)


def test_without_best_the_config_does_not_choose(tmp_path):
    assert Choice(step=3, ema=True).of_run(tmp_path, Config()) == Choice(step=3, ema=True)
