"""The model card says where a student comes from, how well it does and how to use it."""

import dataclasses

import pytest
import yaml

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.export.model_card import CardFacts, CardScore, OtherTeacher, model_card
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

BASE = ModelDimensions(80, 1500, 8, 6, 2048, 51865, 448, 8, 6, 2048, 512)
STUDENT = dataclasses.replace(BASE, n_text_layer=2)
FACTS = CardFacts(
    base_model="openai/whisper-base",
    encoder_layers=(0, 1, 2, 3, 4, 5),
    decoder_layers=(0, 5),
    windows=Windows((30.0,)),
    languages=("no", "en"),
    license="mit",
    training="Trained on prompts.",
    scores=(CardScore("prompts/test", "english", 0.182, 0.073), CardScore("digits", "digits", 0.5)),
)


def header_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_header_holds_what_the_hub_reads():
    assert header_of(model_card("small", FACTS, STUDENT, BASE)) == {
        "language": ["no", "en"],  # YAML reads a bare no as false
        "license": "mit",
        "base_model": "openai/whisper-base",
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["whisper", "distillation", "audio", "jax", "safetensors"],
    }


def test_results_show_student_and_teacher():
    card = model_card("small", FACTS, STUDENT, BASE)
    assert "all 6 encoder layers and 2 of 6 decoder layers" in card
    assert "(the teacher's layers 0 and 5, counted from 0)" in card
    assert "| parameters (millions) | 72.6 | 55.8 |" in card
    assert "| WER %, prompts/test (english normaliser) | 7.30 | 18.20 |" in card
    assert "| WER %, digits (digits normaliser) | not measured | 50.00 |" in card


def test_every_runtime_is_shown_with_the_models_own_name():
    card = model_card("small-whisper", FACTS, STUDENT, BASE)
    assert 'model="small-whisper"' in card
    assert 'FlaxWhisperForConditionalGeneration.from_pretrained("small-whisper")' in card
    assert "ct2-transformers-converter --model small-whisper" in card
    assert "convert-h5-to-ggml.py" in card and 'Model("small-whisper-ggml/ggml-model.bin"' in card


def test_whisper_cpp_is_not_shown_for_bfloat16_which_its_converter_cannot_read():
    card = model_card("small", FACTS, STUDENT, BASE, "bfloat16")
    assert "convert-h5-to-ggml.py" not in card
    assert "export float32 for it" in card
    assert "ct2-transformers-converter" in card


def test_short_context_is_stated_and_programs_that_cannot_run_it_are_not_shown():
    facts = dataclasses.replace(FACTS, windows=Windows((4.0, 10.0)))
    card = model_card("small", facts, dataclasses.replace(STUDENT, n_audio_ctx=500), BASE)
    assert "It hears windows of 4 and 10 seconds." in card
    assert "hears at most 10 seconds at a time, not 30" in card
    assert "ct2-transformers-converter" not in card
    assert "convert-h5-to-ggml" not in card


def test_short_windows_beside_the_full_one_are_stated_and_every_program_is_shown():
    facts = dataclasses.replace(FACTS, windows=Windows((2.0, 8.0, 30.0), margin_seconds=0.5))
    card = model_card("small", facts, STUDENT, BASE)
    assert "It hears windows of 2, 8 and 30 seconds." in card
    assert "the shortest of 2, 8 and 30 seconds that holds it with 0.5 s of silence" in card
    assert "`fastwhisper_windows` in `config.json`" in card
    assert "ct2-transformers-converter" in card and "convert-h5-to-ggml" in card
    assert "## Short windows" not in model_card("small", FACTS, STUDENT, BASE)


def test_english_only_model_is_not_asked_for_a_language():
    english_only = dataclasses.replace(STUDENT, n_vocab=51864)
    card = model_card("small", FACTS, english_only, BASE)
    assert "generate_kwargs" not in card and "<|no|>" not in card


def test_license_is_the_teachers_or_unknown():
    assert "of `openai/whisper-base`, whose licence is mit." in model_card(
        "small", FACTS, STUDENT, BASE
    )
    card = model_card("small", dataclasses.replace(FACTS, license=None), STUDENT, BASE)
    assert header_of(card)["license"] == "unknown"
    assert "whose licence is unknown (its folder does not name it" in card


def second_stage(license, teachers):
    """The card of a student whose teacher is not its base model."""
    facts = dataclasses.replace(
        FACTS,
        base_model="my-student",
        decoder_layers=(1,),
        license=license,
        other_teacher=OtherTeacher("openai/whisper-base", BASE, teachers),
    )
    student = dataclasses.replace(BASE, n_text_layer=1)
    return model_card("small", facts, student, base=STUDENT)


def test_a_teacher_that_is_not_the_base_model_is_named_with_its_own_size():
    card = second_stage("mit", "mit")
    assert (
        "initialised from `my-student`, with all 6 encoder layers and 1 of 2 decoder layers (that"
        " model's layer 1, counted from 0), and distilled from `openai/whisper-base` with"
        " fastwhisper_jax." in card
    )
    assert header_of(card)["base_model"] == "my-student"
    assert "| parameters (millions) | 72.6 | 51.6 |" in card


@pytest.mark.parametrize(
    ("own", "teachers", "header"),
    [
        ("mit", "mit", "mit"),
        ("mit", "apache-2.0", "other"),
        (None, "mit", "unknown"),
        ("mit", None, "unknown"),
    ],
)
def test_licences_of_both_are_stated_where_they_are_two_models(own, teachers, header):
    card = second_stage(own, teachers)
    assert header_of(card)["license"] == header
    assert f"of `my-student`, whose licence is {own or 'unknown (its'}" in card
    assert f"of the teacher, `openai/whisper-base`, is {teachers or 'unknown (its'}" in card


def test_the_card_of_a_student_trained_without_timestamps_says_so():
    warning = "do not ask this model for timestamps"
    assert warning in model_card("small", FACTS, STUDENT, BASE)
    taught = dataclasses.replace(FACTS, trained_with_timestamps=True)
    assert warning not in model_card("small", taught, STUDENT, BASE)
