import numpy as np
import pytest
from support.tokenizers import write_tokenizer

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.tokens import (
    decoder_arrays,
    end_of_text,
    is_multilingual,
    label_tokens,
    load_tokenizer,
    prompt_tokens,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("multilingual")))


@pytest.fixture(scope="module")
def english_tokenizer(tmp_path_factory):
    special = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("english"), special))


def _names(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


@pytest.mark.parametrize("language", ["es", "spanish", "Spanish"])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_prompt_names_language_and_task(tokenizer, language, task):
    assert _names(tokenizer, prompt_tokens(tokenizer, language, task)) == [
        "<|startoftranscript|>",
        "<|es|>",
        f"<|{task}|>",
        "<|notimestamps|>",
    ]


@pytest.mark.parametrize("language", [None, "en", "EN", "english", "English"])
def test_prompt_of_an_english_only_model_has_no_language(english_tokenizer, language):
    assert not is_multilingual(english_tokenizer)
    assert _names(english_tokenizer, prompt_tokens(english_tokenizer, language)) == [
        "<|startoftranscript|>",
        "<|notimestamps|>",
    ]


def test_a_prompt_that_the_model_does_not_know_is_an_input_error(tokenizer, english_tokenizer):
    with pytest.raises(InputError, match="'tlh' is not known"):
        prompt_tokens(tokenizer, "tlh")
    with pytest.raises(InputError, match="no language is given"):
        prompt_tokens(tokenizer, None)
    with pytest.raises(InputError, match="'summarise' is not known"):
        prompt_tokens(tokenizer, "en", "summarise")
    with pytest.raises(InputError, match="English-only"):
        prompt_tokens(english_tokenizer, "es")
    with pytest.raises(InputError, match="English-only"):
        prompt_tokens(english_tokenizer, "en", "translate")


def test_label_starts_with_one_space_and_decodes_to_the_text(tokenizer):
    ids = label_tokens(tokenizer, "  Así es. \n")
    assert tokenizer.decode(ids) == " Así es."
    assert end_of_text(tokenizer) not in ids


@pytest.mark.parametrize("text", ["", "  \n"])
def test_label_of_silence_is_empty(tokenizer, text):
    assert label_tokens(tokenizer, text) == ()


def test_labels_joined_are_the_label_of_the_text_joined_with_a_space(tokenizer):
    first, second = "Press one, now.", "'Tis 22 o'clock"
    joined = label_tokens(tokenizer, first) + label_tokens(tokenizer, second)
    assert joined == label_tokens(tokenizer, f"{first} {second}")


@pytest.mark.parametrize("label", [(), (5,), (5, 6, 7)])
@pytest.mark.parametrize("prompt", [(1, 2), (1, 2, 3, 4)])
@pytest.mark.parametrize("length", [7, 12])
def test_mask_holds_exactly_the_label_and_the_first_end_of_text(prompt, label, length):
    end = 9
    row = decoder_arrays(prompt, label, length, end)
    assert [array.shape for array in row] == [(length,)] * 3
    assert [array.dtype for array in row] == [np.int32, np.int32, np.float32]
    given = [*prompt, *label]
    np.testing.assert_array_equal(row.input_ids, given + [end] * (length - len(given)))
    np.testing.assert_array_equal(row.labels[:-1], row.input_ids[1:])
    assert row.labels[row.label_mask == 1].tolist() == [*label, end]
    assert row.label_mask.sum() == len(label) + 1
    # The first target is predicted at the prompt's last token.
    assert int(row.label_mask.argmax()) == len(prompt) - 1


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 prompt and 3 label tokens in 4 places"):
        decoder_arrays((1, 2), (3, 4, 5), 4, 9)


def test_a_folder_without_a_whisper_tokenizer_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no tokenizer in"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("not json")
    with pytest.raises(InputError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model_is_an_input_error(tmp_path):
    write_tokenizer(tmp_path, ("<|endoftext|>",))
    with pytest.raises(InputError, match=r"has no token <\|startoftranscript\|>"):
        load_tokenizer(tmp_path)


@pytest.mark.real
def test_prompts_are_those_of_transformers_real_tokenizers(real_teacher):
    base = load_tokenizer(real_teacher)
    assert is_multilingual(base)
    assert prompt_tokens(base, "en") == (50258, 50259, 50359, 50363)
    assert end_of_text(base) == 50257
    english = load_tokenizer(real_teacher.parent / "whisper-tiny.en")
    assert not is_multilingual(english)
    assert prompt_tokens(english, "en") == (50257, 50362)


@pytest.mark.real
def test_real_labels_joined_are_the_label_of_the_text_joined(real_teacher):
    tokenizer = load_tokenizer(real_teacher)
    texts = ["Press one, now.", "'Tis 22 o'clock — ¿verdad?", "你好", "(ok) #3"]
    joined = sum((label_tokens(tokenizer, text) for text in texts), ())
    assert joined == label_tokens(tokenizer, " ".join(texts))
