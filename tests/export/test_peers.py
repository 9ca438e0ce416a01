"""Other programs load all tensors of our exports and compute the same as we do.

The programs need their own environments. FASTWHISPER_TORCH_PYTHON names an interpreter that has
PyTorch and transformers 5, FASTWHISPER_FLAX_PYTHON one that has transformers 4.57 and Flax.
"""

import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor, WhisperTokenizer

from fastwhisper_jax.audio.windows import Windows, window_positions
from fastwhisper_jax.export.hf_export import export_student
from fastwhisper_jax.export.hf_load import load_model
from fastwhisper_jax.export.model_card import CardFacts
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.student import kept_layers, student_dimensions, student_params

PEERS = {
    "torch": ("FASTWHISPER_TORCH_PYTHON", "PyTorch and transformers 5"),
    "flax": ("FASTWHISPER_FLAX_PYTHON", "transformers 4.57 and Flax"),
}


class Peer:
    """A program in another environment, started once. It computes one folder after another."""

    def __init__(self, name, python, folder):
        self.folder = folder
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, Path(__file__).with_name(f"peer_{name}.py")],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "XLA_FLAGS": ""},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def compute(self, model, inputs):
        """Loads a model's folder; returns the report and the outputs."""
        given, outputs = self.folder / "in.npz", self.folder / "out.npz"
        np.savez(given, **inputs)
        self.process.stdin.write(json.dumps([str(model), str(given), str(outputs)]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line), np.load(outputs)
        pytest.fail(f"the program ended: {self.log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """A function of a peer's name to its program."""
    started = {}

    def find(name):
        variable, holds = PEERS[name]
        python = os.environ.get(variable)
        if not python:
            pytest.skip(f"{variable} is not set: it names a Python with {holds}")
        if name not in started:
            started[name] = Peer(name, python, tmp_path_factory.mktemp(name))
        return started[name]

    yield find
    for peer in started.values():
        peer.process.communicate()  # the end of its input ends it


def run_ours(folder, inputs):
    model = load_model(folder)
    options = ModelOptions(dtype="float32")
    log_mel = inputs["log_mel"].transpose(0, 2, 1)
    encode = jax.jit(whisper.encode, static_argnums=(1, 3))
    decode = jax.jit(whisper.decode, static_argnums=(1, 4))
    encoder_states = encode(model.params, model.dims, log_mel, options)
    states = decode(model.params, model.dims, inputs["tokens"], encoder_states, options)
    return {"encoder_states": encoder_states, "logits": whisper.logits(model.params, states)}


def assert_agree(ours, theirs, peer="torch"):
    """Encoder outputs reach 24, and the residual stream before them reaches 500.

    One of 2.3 million states differs by 1.1e-3 on a processor without AVX-512, and none by 1e-3 on
    one with it. FlaxWhisper is less exact because it sums each projection in one go.
    """
    hidden_rtol = 3e-4 if peer == "flax" else 0
    np.testing.assert_allclose(ours["logits"], theirs["logits"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(
        ours["encoder_states"], theirs["encoder_states"], rtol=hidden_rtol, atol=2e-3
    )
    assert np.abs(ours["encoder_states"] - theirs["encoder_states"]).mean() < 1e-5


def assert_loaded_completely(report):
    assert report["missing"] in ([], ["proj_out.weight"])  # tied, so it may count as missing
    assert report["unexpected"] == report["mismatched"] == []
    assert report["round_trip"] == " hello"
    assert report["normalized"] == "color"


def export_with_two_decoder_layers(folder, teacher_folder, *windows_seconds):
    """Exports an untrained student of a teacher; returns the exported parameters."""
    teacher = load_model(teacher_folder)
    encoder = kept_layers(None, teacher.dims.n_audio_layer, "encoder_layers")
    decoder = kept_layers(2, teacher.dims.n_text_layer, "decoder_layers")
    windows = Windows(windows_seconds)
    dims = student_dimensions(teacher.dims, encoder, decoder, window_positions(windows.longest))
    params = student_params(teacher.params, dims, encoder, decoder)
    facts = CardFacts(teacher_folder.name, encoder, decoder, windows)
    export_student(folder, dims, params, teacher_folder, facts)
    return params


def random_inputs(dims):
    generator = np.random.default_rng(0)
    return {
        "log_mel": generator.normal(size=(2, dims.n_mels, dims.n_frames)).astype(np.float32),
        "tokens": generator.integers(0, dims.n_vocab, (2, 7)).astype(np.int32),
    }


@pytest.fixture(scope="module")
def speech(real_data):
    """Waveforms and transcripts of three real recordings."""
    manifest = real_data / "asterisk-en" / "test.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()[:3]]
    audio = [soundfile.read(manifest.parent / line["audio"], dtype="float32")[0] for line in lines]
    return audio, [line["text"] for line in lines]


def speech_inputs(folder, speech):
    """The same log-mel and target tokens for everybody, made by transformers."""
    audio, texts = speech
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    features = extractor(audio, sampling_rate=16_000, return_tensors="np").input_features
    tokens = tokenizer(texts, padding=True, return_tensors="np").input_ids
    return {"log_mel": features.astype(np.float32), "tokens": tokens.astype(np.int32)}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("windows_seconds", [(2.0,), (1.0,), (0.5, 2.0)])
def test_a_tiny_export_loads_completely_and_computes_the_same(
    peers, peer, windows_seconds, teacher_folder, tmp_path
):
    target = tmp_path / "student"
    export_with_two_decoder_layers(target, teacher_folder, *windows_seconds)
    inputs = random_inputs(load_model(target).dims)
    report, outputs = peers(peer).compute(target, inputs)
    assert_loaded_completely(report)
    assert report["alignment_heads"] == [[1, 0], [1, 1]]
    assert report["end_of_text"] == 257
    assert_agree(run_ours(target, inputs), outputs, peer)
    if peer == "torch":
        assert report["features"] == [8, 100 * windows_seconds[-1]]


@pytest.mark.real
@pytest.mark.parametrize("model", ["whisper-base", "whisper-tiny.en"])
def test_a_real_teacher_computes_the_same_as_pytorch(peers, model, real_teacher, speech):
    folder = real_teacher.parent / model
    inputs = speech_inputs(folder, speech)
    _, outputs = peers("torch").compute(folder, inputs)
    assert_agree(run_ours(folder, inputs), outputs)


@pytest.mark.real
@pytest.mark.parametrize("peer", PEERS)
def test_a_real_pruned_student_loads_completely_and_computes_the_same(
    peers, peer, real_teacher, speech, tmp_path
):
    target = tmp_path / "student"
    params = export_with_two_decoder_layers(target, real_teacher, 30.0)
    assert jax.tree.all(jax.tree.map(np.array_equal, load_model(target).params, params))
    inputs = speech_inputs(target, speech)
    report, outputs = peers(peer).compute(target, inputs)
    assert_loaded_completely(report)
    assert report["alignment_heads"] == [[1, 1], [1, 2], [1, 4], [1, 6]]
    assert report["end_of_text"] == 50257
    assert_agree(run_ours(target, inputs), outputs, peer)
