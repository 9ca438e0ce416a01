"""What an export's model card says of the run that it comes from."""

import json
import shutil

import pytest

from fastwhisper_jax.config.overrides import override
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.distillation.chosen_weights import NEWEST, Choice
from fastwhisper_jax.distillation.export_run import card_facts
from fastwhisper_jax.distillation.pair import load_pair
from fastwhisper_jax.export.model_card import OtherTeacher
from fastwhisper_jax.files import path_of
from fastwhisper_jax.training.checkpoints import Restored

RESTORED = Restored(8, None, {"languages": ["es", "en"]}, ())


EVALUATED = ("--data.eval", "/speech/near/a.jsonl", "far=/speech/far/b.jsonl", "far=owner/c")


@pytest.fixture
def facts(tiny_recipe, tmp_path):
    """A function of a recipe's overrides to the facts on the card."""

    def facts(*overrides, choice=NEWEST):
        config = override(load_recipe(tiny_recipe), [*map(str, overrides)])
        return card_facts(path_of(tmp_path), config, load_pair(config), RESTORED, choice)

    return facts


def licensed(source, folder, license):
    """A copy of a model whose card names a licence."""
    shutil.copytree(source, folder)
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")
    return folder


def test_a_student_of_the_teacher_has_no_other_teacher(facts, tiny_teacher):
    found = facts()
    assert (found.base_model, found.other_teacher) == (tiny_teacher.name, None)


def test_languages_are_those_of_the_training_data(facts):
    assert facts().languages == ("es", "en")  # the recipe says en


def test_a_student_that_was_cut_from_another_model_names_its_teacher_too(
    facts, tiny_teacher, tiny_dims, tmp_path
):
    teacher = licensed(tiny_teacher, tmp_path / "large", "mit")
    first = licensed(tiny_teacher, tmp_path / "first", "unknown")
    found = facts("--teacher.path", teacher, "--student.path", first)
    assert (found.base_model, found.license) == ("first", None)
    assert found.other_teacher == OtherTeacher("large", tiny_dims, "mit")


@pytest.mark.parametrize(
    ("choice", "near", "far"), [(NEWEST, 0.2, 0.4), (Choice(ema=True), 0.1, 0.3)]
)
def test_scores_are_those_of_each_set_at_this_step_and_of_these_weights(
    facts, tmp_path, choice, near, far
):
    rates = {"eval_wer": 0.2, "far/eval_wer": 0.4, "ema/eval_wer": 0.1, "ema/far/eval_wer": 0.3}
    rows = [{"step": 4} | dict.fromkeys(rates, 0.9), {"step": 8} | rates, {"step": 9}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    scores = [(score.data, score.student_wer) for score in facts(*EVALUATED, choice=choice).scores]
    assert scores == [("near/a", near), ("far: far/b, owner/c", far)]


def test_what_was_not_evaluated_at_this_step_has_no_score(facts, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 8, "loss": 1.0}\n')
    assert facts(*EVALUATED).scores == ()


def test_the_card_says_that_its_weights_are_an_average_or_were_chosen(facts):
    plain = facts(*EVALUATED).training
    ema = facts(*EVALUATED, choice=Choice(ema=True)).training
    best = facts(*EVALUATED, "--training.keep_best=eval_ce", choice=Choice(best=True)).training
    assert plain.endswith("frozen: encoder.")
    assert ema == f"{plain} The weights are the student's exponential moving average (decay 0.9)."
    assert best.startswith(
        f"{plain} Of the run's checkpoints, this one has the lowest eval_ce. Its"
    )
