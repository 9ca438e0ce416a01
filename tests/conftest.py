"""Settings and fixtures of all tests.

Every test runs on 8 virtual CPU devices, and rank promotion is an error.

Most of a test's time is compilation. So all processes share one folder of compiled programs, and
XLA leaves out most of its optimisations. Tests marked `real` run large models and keep them; so do
all tests with `pytest --optimised`.
"""

import os
import sys
import tempfile

from support.compiler_flags import compiler_flags

# jax reads these variables when it is imported, so they are set first. Workers inherit them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    is_optimised = "--optimised" in sys.argv
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = compiler_flags(8, is_optimised=is_optimised)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fastwhisper-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if not is_optimised:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # Tests start several programs side by side; threads that wait for each other would spin.
    os.environ["OMP_NUM_THREADS"] = "1"

import contextlib
import importlib.util
import io
import json
import math
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import safetensors.numpy
import soundfile
from flax import traverse_util
from support import tiny_run
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from fastwhisper_jax.cli import main
from fastwhisper_jax.export.hf_configs import SIZES
from fastwhisper_jax.models.whisper import hf_names
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

# A shell starts what it puts in the background with SIGINT ignored, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_numpy_rank_promotion", "raise")


OPTIMISED = "--optimised"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTIMISED, action="store_true", help="compile with all of XLA's optimisations")


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|transcribe|>",
    "<|notimestamps|>",
)
# 256 bytes and "he" come before the special tokens.
END_OF_TEXT = 257
TINY = ModelDimensions(
    n_mels=8,
    n_audio_ctx=1500,  # the 30 s of every published Whisper
    n_audio_head=2,
    n_audio_layer=1,
    n_audio_mlp=16,
    n_vocab=END_OF_TEXT + len(SPECIAL_TOKENS),
    n_text_ctx=32,
    n_text_head=2,
    n_text_layer=2,
    n_text_mlp=16,
    n_state=16,
)
WORDS = ("zero", "one two", "three", "four five", "six", "seven", "eight", "nine")


def _folder_from(variable: str, holds: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder that holds {holds}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable}={value} is not a folder; it must hold {holds}")
    return folder


@pytest.fixture(scope="session")
def real_teacher() -> Path:
    """The folder of whisper-base; that of whisper-tiny.en stands beside it."""
    return _folder_from("FASTWHISPER_REAL_TEACHER", "whisper-base's config.json and weights")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds asterisk-en, asterisk-es and fsdd-digits."""
    return _folder_from("FASTWHISPER_REAL_DATA", "asterisk-en, asterisk-es and fsdd-digits")


def random_params(dims: ModelDimensions) -> hf_names.Params:
    """Every leaf different, the same at each call."""
    generator = np.random.default_rng(0)
    flat = {
        path: generator.normal(scale=0.3, size=shape).astype(np.float32)
        for path, shape in hf_names.param_shapes(dims).items()
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def write_whisper(folder: Path, dims: ModelDimensions, params: hf_names.Params) -> Path:
    """Writes what a published Whisper's folder holds."""
    folder.mkdir(parents=True)
    tokens = {
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "pad_token_id": END_OF_TEXT,
        "decoder_start_token_id": END_OF_TEXT + 1,
    }
    config = {
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "architectures": ["WhisperForConditionalGeneration"],
        "num_hidden_layers": dims.n_audio_layer,
        "torch_dtype": "float16",
        "transformers_version": "4.27.0",
        **{theirs: getattr(dims, ours) for ours, theirs in SIZES},
        **tokens,
    }
    last = dims.n_text_layer - 1
    generation_config = {
        "alignment_heads": [[max(last - 2, 0), 0], [last - 1, 1], [last, 0], [last, 1]],
        "suppress_tokens": [1, 2],
        "max_length": dims.n_text_ctx,
        **tokens,
    }
    preprocessor_config = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": dims.n_mels,
        "chunk_length": int(dims.context_seconds),
        "hop_length": 160,
        "n_fft": 400,
    }
    tokenizer_config = {
        "tokenizer_class": "WhisperTokenizer",
        **{f"{kind}_token": "<|endoftext|>" for kind in ("bos", "eos", "unk", "pad")},
    }
    for name, content in {
        "config.json": config,
        "generation_config.json": generation_config,
        "preprocessor_config.json": preprocessor_config,
        "tokenizer_config.json": tokenizer_config,
    }.items():
        (folder / name).write_text(json.dumps(content))
    _tiny_tokenizer().save(str(folder / "tokenizer.json"))
    tensors = dict(hf_names.tensors_from_params(params, dims))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _tiny_tokenizer() -> Tokenizer:
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*characters, "he"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


@pytest.fixture(autouse=True)
def optimised_where_real(request, monkeypatch):
    """Tests marked `real`, and the processes that they start, run what users run."""
    is_real = request.node.get_closest_marker("real") is not None
    if request.config.getoption(OPTIMISED) or not is_real:
        yield
        return
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def write_teacher():
    """A function (folder, dims, params) that writes a Whisper as a Hugging Face folder."""
    return write_whisper


@pytest.fixture(scope="session")
def make_params():
    """A function of dims to random params."""
    return random_params


@pytest.fixture(scope="session")
def tiny_dims() -> ModelDimensions:
    """The sizes of `tiny_teacher`."""
    return TINY


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory) -> Path:
    """A Whisper of random weights with windows of 30 s; tests must not change the folder."""
    return write_whisper(tmp_path_factory.mktemp("models") / "tiny", TINY, random_params(TINY))


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory) -> Path:
    """Eight short recordings of tones in noise; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("speech")
    generator = np.random.default_rng(1)
    lines = []
    for index, text in enumerate(WORDS):
        times = np.arange(8_000 + 400 * index) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * 200 * (index + 1) * times)
        samples = tone + generator.normal(scale=0.01, size=times.shape)
        soundfile.write(folder / f"{index}.wav", samples, 16_000)
        lines.append(json.dumps({"audio": f"{index}.wav", "text": text, "id": f"u{index}"}))
    path = folder / "speech.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def audio(tmp_path_factory) -> Path:
    """A folder of short recordings of noise."""
    folder = tmp_path_factory.mktemp("audio")
    tiny_run.write_audio(folder)
    return folder


@pytest.fixture(scope="session")
def bytes_per_device():
    """A function of shapes and their shardings to the bytes that they take on each device."""

    def size(shape, sharding):
        return math.prod(sharding.shard_shape(shape.shape)) * shape.dtype.itemsize

    return lambda shapes, shardings: sum(jax.tree.leaves(jax.tree.map(size, shapes, shardings)))


@pytest.fixture(scope="session")
def tpu_compiler():
    """Skips where a program cannot be compiled for a TPU."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install '.[plan]'")


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def run_command(*arguments: object) -> Done:
    """Runs `fastwhisper` with these arguments in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's --help
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def fastwhisper():
    """A function of the arguments of `fastwhisper` to its exit code and what it prints."""
    return run_command


RECIPE = '''"""ASKD of the tiny teacher: first it alone, then with the student's EMA."""

from fastwhisper_jax.config import *

config = Config(
    teacher=TeacherConfig(path={teacher!r}),
    student=StudentConfig(decoder_layers=1, dropout=0.1),
    data=DataConfig(train=({data!r},), target_buckets=(16,)),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig("cosine", init_value=1.0, end_value=0.2, steps=0.5),
        self_weight=ScheduleConfig("linear", end_value=0.5, begin=0.5, steps=0.5),
        ema_decay=0.9,
    ),
    optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.1),
    training=TrainingConfig(
        steps=8, log_every=1, save_every=4, eval_batch_size=8, max_new_tokens=8
    ),
)
'''


@pytest.fixture(scope="session")
def tiny_recipe(tiny_teacher, tiny_manifest, tmp_path_factory) -> Path:
    """A recipe that trains the tiny teacher's student for 8 steps."""
    path = tmp_path_factory.mktemp("recipes") / "tiny_askd.py"
    path.write_text(RECIPE.format(teacher=str(tiny_teacher), data=str(tiny_manifest)))
    return path
