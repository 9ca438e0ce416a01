"""The shipped teacher is small and complete, and transcribes what it was trained for."""

from pathlib import Path

import pytest

import fastwhisper_jax.demo
from fastwhisper_jax.arguments import EvaluateArguments
from fastwhisper_jax.commands import evaluate
from fastwhisper_jax.demo.corpus import TEACHER_VOICES, CorpusSpec, write_corpus
from fastwhisper_jax.demo.sentences import sentences
from fastwhisper_jax.demo.untrained import DIMS
from fastwhisper_jax.export.hf_load import load_model

TEACHER = Path(fastwhisper_jax.demo.__file__).parent / "teacher"
HIGHEST_WER = 0.1  # on 16 utterances; its card says how well it does on more


def test_it_takes_at_most_4_mb_and_has_the_sizes_that_its_script_makes():
    files = list(TEACHER.iterdir())
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= {file.name for file in files}
    assert load_model(TEACHER).dims == DIMS


def test_its_tokenizer_writes_every_sentence_and_reads_it_back():
    from fastwhisper_jax.models.whisper.tokens import label_tokens, load_tokenizer, prompt_tokens

    tokenizer = load_tokenizer(TEACHER)
    assert len(prompt_tokens(tokenizer, "en")) == 2  # English only
    for text in sentences("test", 100, seed=9):
        tokens = label_tokens(tokenizer, text)
        assert 0 < len(tokens) <= DIMS.n_text_ctx - 3
        assert tokenizer.decode(tokens).strip() == text


@pytest.mark.usefixtures("speaks")
def test_it_hears_sentences_that_it_was_not_trained_on(tmp_path):
    spec = CorpusSpec("speech", "test", TEACHER_VOICES, 16, seed=77)
    manifest = write_corpus(spec, tmp_path, lambda _: None)
    given = EvaluateArguments(
        str(TEACHER), data=str(manifest), max_new_tokens=60, normalizer="basic"
    )
    assert evaluate.run(given).wer < HIGHEST_WER
