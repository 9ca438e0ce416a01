"""Evaluation while training is fed as training is, and runs no further ahead."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.commands import train
from fastwhisper_jax.distillation import assembly

BATCHES = 5


@pytest.fixture
def config():
    config = tiny.make_config()
    return dataclasses.replace(config, data=dataclasses.replace(config.data, threads=16))


def test_evaluation_waits_for_a_batch_before_the_second_after_it_is_dispatched(
    config, audio, monkeypatch
):
    waited, ahead, threads = [], [], []

    def batches(*_, **settings):
        threads.append(settings["threads"])
        for index in range(BATCHES):
            # Asked for the next one: so many before it are not known to be done.
            ahead.append(index - len(waited))
            yield {"index": jnp.float32(index)}

    block = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(block(x)))
    monkeypatch.setattr(assembly, "device_batches", batches)
    monkeypatch.setattr(
        assembly, "make_eval_step", lambda *_: lambda *given: {"eval_ce": (given[2]["index"], 1.0)}
    )
    data = SimpleNamespace(eval=tiny.make_corpus(audio), load_eval_inputs=None, end_of_text=60)
    models = SimpleNamespace(teacher_dims=tiny.TEACHER, teacher_params={})
    evaluate = assembly.make_evaluate(config, None, models, data, None, None)
    assert evaluate({}) == {"eval_ce": 2.0}
    assert (threads, max(ahead)) == ([16], 1)


def test_error_rates_read_with_the_threads_of_the_recipe(config, audio, monkeypatch):
    read = []
    report = SimpleNamespace(wer=0.5, cer=0.25)
    monkeypatch.setattr(train, "decoding_rules", lambda _: SimpleNamespace(end_of_text=60))
    monkeypatch.setattr(train, "make_transcribe", lambda *_: None)
    monkeypatch.setattr(train, "evaluation_batches", lambda *given: read.append(given))
    monkeypatch.setattr(train, "evaluate", lambda *_: (report, []))
    pair = SimpleNamespace(teacher=SimpleNamespace(generation_config={}), student_dims=tiny.STUDENT)
    mesh = tiny.make_mesh_of_one()
    tokenizer = SimpleNamespace(decode=str)
    score = train._make_score(config, pair, tiny.make_corpus(audio), None, tokenizer, mesh)
    assert score({}) == {"eval_wer": 0.5, "eval_cer": 0.25}
    assert read[0][-1] == 16
