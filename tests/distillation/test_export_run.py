"""What an export's model card says of the run that it comes from."""

import shutil

import pytest

from fastwhisper_jax.config.overrides import override
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.distillation.export_run import card_facts
from fastwhisper_jax.distillation.pair import load_pair
from fastwhisper_jax.export.model_card import OtherTeacher
from fastwhisper_jax.files import path_of
from fastwhisper_jax.training.checkpoints import Restored

RESTORED = Restored(8, None, {"languages": ["es", "en"]}, ())


@pytest.fixture
def facts(tiny_recipe, tmp_path):
    """A function of a recipe's overrides to the facts on the card."""

    def facts(*overrides):
        config = override(load_recipe(tiny_recipe), [*map(str, overrides)])
        return card_facts(path_of(tmp_path), config, load_pair(config), RESTORED)

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
