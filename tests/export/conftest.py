"""Tiny random Whispers as Hugging Face folders: one with a tiny vocabulary, one with Whisper's.

Some runtimes need Whisper's vocabulary. No two parameters are equal.
"""

import itertools
import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

END_OF_TEXT = 50257
SAID_TOKEN = 300
FULL_VOCABULARY = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_head=1,
    n_audio_layer=1,
    n_audio_mlp=256,  # whisper.cpp assumes 4 x the width
    n_vocab=51865,
    n_text_ctx=448,
    n_text_head=1,
    n_text_layer=4,
    n_text_mlp=256,
    n_state=64,
)


@pytest.fixture(scope="session")
def dims() -> ModelDimensions:
    """Sizes that differ as far as they can, so that no two can be mistaken for each other."""
    return ModelDimensions(
        n_mels=8,
        n_audio_ctx=100,
        n_audio_head=2,
        n_audio_layer=2,
        n_audio_mlp=32,
        n_vocab=264,
        n_text_ctx=20,
        n_text_head=2,
        n_text_layer=4,
        n_text_mlp=24,
        n_state=16,
    )


@pytest.fixture(scope="session")
def params(dims, make_params):
    return make_params(dims)


@pytest.fixture
def teacher_folder(dims, params, write_teacher, tmp_path) -> Path:
    """A folder like that of a published Whisper. Each test gets a fresh one and may damage it."""
    return write_teacher(tmp_path / "teacher", dims, params)


@pytest.fixture(scope="session")
def full_teacher(write_teacher, make_params, tmp_path_factory) -> Path:
    """A Whisper that every runtime accepts. It transcribes all audio as "AAs", one certain token.

    (Random weights would never stop before the last token, at any temperature.) Tests must not
    change the folder.
    """
    folder = tmp_path_factory.mktemp("models") / "full"
    params = make_params(FULL_VOCABULARY)
    embedding, bias = params["decoder"]["embed_tokens"], params["decoder"]["norm"]["bias"]
    embedding[:, 0], bias[0] = 0.0, 10.0
    embedding[SAID_TOKEN, 0], embedding[END_OF_TEXT, 0] = (
        9.0,
        10.0,
    )  # the end is not allowed as the first token
    write_teacher(folder, FULL_VOCABULARY, params)
    _give_full_vocabulary(folder)
    return folder


def _special_tokens() -> list[str]:
    """Whisper's 1,608 special tokens in order. The first one has the id 50257."""
    codes = list(LANGUAGES)[:99]
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    times = [f"{step * 0.02:.2f}" for step in range(1501)]
    names = ["endoftext", "startoftranscript", *codes, *tasks, *times]
    return [f"<|{name}|>" for name in names]


def _give_full_vocabulary(folder: Path) -> None:
    """Writes a tokenizer with 51,865 tokens, and the ids of special tokens, to a model's folder."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ascii_letters = [letter for letter in letters if letter.isascii() and letter.isalpha()]
    made_up = map("".join, itertools.product(ascii_letters, repeat=3))
    words = [*letters, *itertools.islice(made_up, END_OF_TEXT - len(letters))]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = _special_tokens()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in special}
    assert (ids["<|endoftext|>"], ids["<|30.00|>"]) == (END_OF_TEXT, 51864)
    tokens = {f"{kind}_token_id": END_OF_TEXT for kind in ("bos", "eos", "pad")}
    tokens["decoder_start_token_id"] = END_OF_TEXT + 1
    generation = {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in list(LANGUAGES)[:99]},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 50,
        "suppress_tokens": list(range(END_OF_TEXT + 1, ids["<|notimestamps|>"])),
        "begin_suppress_tokens": [END_OF_TEXT],
        "max_length": 40,
        "alignment_heads": [[3, 0]],
    }
    for name, changes in (
        ("config.json", tokens),
        ("generation_config.json", tokens | generation),
        ("tokenizer_config.json", {"additional_special_tokens": special}),
    ):
        content = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(content))
