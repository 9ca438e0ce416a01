"""One contender of step.py: the same step by transformers' last Flax Whisper.

    run by the benchmark as: flax_step.py MODEL frozen|full BATCH TOKENS STEPS

Runs under an interpreter with transformers 4.57 and Flax; this package is not imported. The frozen
encoder is run once, for teacher and student.
"""

import copy
import logging
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from contenders.report import print_times
from transformers import FlaxWhisperForConditionalGeneration  # type: ignore[attr-defined]

TEMPERATURE = 2.0


def main(model: str, mode: str, batch_size: int, length: int, steps: int) -> None:
    logging.disable(logging.WARNING)
    teacher = FlaxWhisperForConditionalGeneration.from_pretrained(model, from_pt=True)
    teacher_params = teacher.to_fp32(teacher.params)
    config = copy.deepcopy(teacher.config)
    config.decoder_layers = 2
    student = FlaxWhisperForConditionalGeneration(config, seed=0)
    params = student.params
    params["model"]["encoder"] = jax.tree.map(jnp.copy, teacher_params["model"]["encoder"])
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))
    if mode == "frozen":
        label = jax.tree_util.tree_map_with_path(
            lambda path, _: "freeze" if path[1].key == "encoder" else "train", params
        )
        parts = {"train": optimizer, "freeze": optax.set_to_zero()}
        optimizer = optax.multi_transform(parts, label)
    opt_state = optimizer.init(params)
    shape = (batch_size, teacher.config.num_mel_bins, 3000)
    log_mel = jax.random.normal(jax.random.key(0), shape)
    tokens = jax.random.randint(jax.random.key(1), (batch_size, length), 0, 50_000)

    def loss_fn(params: Any, teacher_params: Any, log_mel: jax.Array, tokens: jax.Array) -> Any:
        taught = teacher(log_mel, tokens, params=teacher_params)
        if mode == "frozen":
            encoder_states = jax.lax.stop_gradient(taught.encoder_last_hidden_state)
            encoder = jax.lax.stop_gradient(params["model"]["encoder"])
            params = {"model": {**params["model"], "encoder": encoder}}
            logits = student.decode(tokens, (encoder_states,), params=params).logits
        else:
            logits = student(log_mel, tokens, params=params).logits
        target = jax.lax.stop_gradient(taught.logits) / TEMPERATURE
        log_target, log_learnt = map(jax.nn.log_softmax, (target, logits / TEMPERATURE))
        kl = (jnp.exp(log_target) * (log_target - log_learnt)).sum(-1).mean() * TEMPERATURE**2
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()
        return 0.8 * ce + kl

    @jax.jit
    def step(params: Any, opt_state: Any, *rest: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, *rest)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        params, opt_state, loss = step(params, opt_state, teacher_params, log_mel, tokens)
        loss.block_until_ready()
        seconds.append(time.perf_counter() - start)
    print_times(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
