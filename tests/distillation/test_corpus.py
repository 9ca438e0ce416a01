import json

import pytest
from support.tokenizers import write_tokenizer

from fastwhisper_jax.data.manifest import Utterance
from fastwhisper_jax.distillation.corpus import read_corpus, tokenise
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.tokens import label_tokens, load_tokenizer, prompt_tokens


@pytest.fixture
def corpus_of(tiny_teacher, tiny_manifest, tmp_path):
    """A function of the languages that lines name, and of the default, to a corpus."""
    tokenizer = load_tokenizer(tiny_teacher)

    def corpus_of(*languages, default):
        path = tmp_path / "m.jsonl"
        audio = str(tiny_manifest.with_name("0.wav"))
        lines = [{"audio": audio, "text": "zero", "language": each} for each in languages]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        how = {"task": "transcribe", "buckets": [16], "context_seconds": 30.0}
        return read_corpus([str(path)], tokenizer, language=default, **how)

    return corpus_of


@pytest.mark.parametrize("default", ["en", "EN", "english", "English"])
def test_languages_are_codes_however_they_were_given(corpus_of, default):
    corpus = corpus_of(None, "english", "EN", default=default)
    assert [utterance.language for utterance in corpus.utterances] == ["en"] * 3
    assert len(set(corpus.tokens)) == 1


def test_a_lines_own_language_wins_over_the_recipes(corpus_of):
    assert corpus_of("en", default="xx").utterances[0].language == "en"
    with pytest.raises(InputError, match="language 'xx' is not known"):
        corpus_of("xx", default="en")


def test_an_english_only_model_needs_no_language(corpus_of, monkeypatch):
    monkeypatch.setattr("fastwhisper_jax.models.whisper.tokens.is_multilingual", lambda _: False)
    monkeypatch.setattr("fastwhisper_jax.distillation.corpus.is_multilingual", lambda _: False)
    assert corpus_of(None, default=None).utterances[0].language == "en"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("multilingual")))


def test_each_utterance_has_the_prompt_of_its_language(tokenizer):
    utterances = [Utterance("a", "/a.wav", "sí", "es"), Utterance("b", "/b.wav", "yes", "en")]
    spanish, english = tokenise(tokenizer, utterances)
    assert spanish.prompt == prompt_tokens(tokenizer, "es")
    assert english.prompt == prompt_tokens(tokenizer, "en")
    assert english.label == label_tokens(tokenizer, "yes")


def test_an_utterance_without_text_or_of_an_unknown_language_is_named(tokenizer):
    with pytest.raises(InputError, match=r'utterance b \(/b.wav\) has no text; .* add "text"'):
        tokenise(tokenizer, [Utterance("b", "/b.wav", None, "en")])
    with pytest.raises(InputError, match="utterance c: language 'tlh'"):
        tokenise(tokenizer, [Utterance("c", "/c.wav", "nuqneH", "tlh")])
