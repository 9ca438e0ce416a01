"""Evaluation while training is fed as training is, and runs no further ahead."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from support import tiny_run as tiny

from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.distillation import score as scoring
from fastwhisper_jax.distillation import task as tasks
from fastwhisper_jax.distillation.run_schedule import make_run_schedule

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
    monkeypatch.setattr(tasks, "device_batches", batches)
    monkeypatch.setattr(
        tasks, "make_eval_step", lambda *_: lambda *given: {"eval_ce": (given[2]["index"], 1.0)}
    )
    mesh = tiny.make_mesh_of_one()
    corpus = tiny.make_corpus(audio)
    schedule = make_run_schedule(config.objective, config.optimizer, tiny.STEPS)
    data = tasks.RunData(corpus, {"": corpus}, None, None, tiny.END_OF_TEXT)
    task = tasks.make_task(config, tiny.pair_shapes(), schedule, mesh, dict, data)
    assert task.score({}, {}) == {"eval_ce": 2.0}
    assert (threads, max(ahead)) == ([16], 1)


def test_error_rates_read_with_the_threads_of_the_recipe(config, audio, monkeypatch):
    read = []
    report = SimpleNamespace(wer=0.5, cer=0.25, loops=3)
    monkeypatch.setattr(scoring, "make_transcribe", lambda *_: None)
    monkeypatch.setattr(scoring, "evaluation_batches", lambda *given: read.append(given))
    monkeypatch.setattr(scoring, "evaluate", lambda *_: (report, []))
    rules = DecodingRules(end_of_text=tiny.END_OF_TEXT)
    tokenizer = SimpleNamespace(decode=str)
    corpus, mesh = tiny.make_corpus(audio), tiny.make_mesh_of_one()
    corpora = {"": corpus, "dev": corpus}
    student = tiny.pair_shapes().student
    score = scoring.make_score_params(config, student, rules, corpora, None, tokenizer, mesh)
    rates = {"eval_wer": 0.5, "eval_cer": 0.25, "eval_loops": 3}
    assert score({}) == rates | {f"dev/{name}": rate for name, rate in rates.items()}
    assert read[0][-1] == 16
