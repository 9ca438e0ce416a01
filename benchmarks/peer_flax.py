"""transformers' last Flax Whisper as a contender of step.py and plan.py.

    python benchmarks/peer_flax.py step MODEL frozen|full BATCH TOKENS STEPS
    python benchmarks/peer_flax.py plan DIMS.json TOPOLOGY BATCH TOKENS PROGRAM.txt

Runs under an interpreter with transformers 4.57 and Flax, and libtpu for `plan`; this package is
not imported. A frozen encoder is run once, for teacher and student.

`plan` compiles the step for a TPU slice from shapes alone, as Distil-Whisper's Flax trainer runs
it: parameters and optimiser state whole on every chip, the batch divided, bfloat16, the encoder
frozen. It writes the compiled program to PROGRAM.txt, so that one rule can count both contenders.
"""

import copy
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from side_by_side import print_times
from transformers import FlaxWhisperForConditionalGeneration, WhisperConfig

# libtpu must not look for a TPU on this machine.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
TEMPERATURE = 2.0
COMPILER_OPTIONS = {"xla_tpu_enable_async_collective_fusion": "false"}


def make_optimizer(params: Any, freezes_encoder: bool) -> optax.GradientTransformation:
    """AdamW after clipping; a frozen encoder has no optimiser state."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))
    if not freezes_encoder:
        return optimizer
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "freeze" if path[1].key == "encoder" else "train", params
    )
    return optax.multi_transform({"train": optimizer, "freeze": optax.set_to_zero()}, labels)


def make_step(
    teacher: Any, student: Any, optimizer: optax.GradientTransformation, freezes_encoder: bool
) -> Any:
    """One update of CE + KL: (params, opt_state, teacher_params, log_mel, tokens)."""

    def loss_fn(params: Any, teacher_params: Any, log_mel: jax.Array, tokens: jax.Array) -> Any:
        taught = teacher(log_mel, tokens, params=teacher_params)
        if freezes_encoder:
            states = jax.lax.stop_gradient(taught.encoder_last_hidden_state)
            encoder = jax.lax.stop_gradient(params["model"]["encoder"])
            params = {"model": {**params["model"], "encoder": encoder}}
            logits = student.decode(tokens, (states,), params=params).logits
        else:
            logits = student(log_mel, tokens, params=params).logits
        logits = logits.astype(jnp.float32)
        target = jax.lax.stop_gradient(taught.logits).astype(jnp.float32) / TEMPERATURE
        log_target, log_learnt = map(jax.nn.log_softmax, (target, logits / TEMPERATURE))
        kl = (jnp.exp(log_target) * (log_target - log_learnt)).sum(-1).mean() * TEMPERATURE**2
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()
        return 0.8 * ce + kl

    def step(params: Any, opt_state: Any, *rest: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, *rest)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


def time_step(model: str, mode: str, batch_size: int, length: int, steps: int) -> None:
    """Times steps on this machine, float32."""
    logging.disable(logging.WARNING)
    teacher = FlaxWhisperForConditionalGeneration.from_pretrained(model, from_pt=True)
    teacher_params = teacher.to_fp32(teacher.params)
    config = copy.deepcopy(teacher.config)
    config.decoder_layers = 2
    student = FlaxWhisperForConditionalGeneration(config, seed=0)
    params = student.params
    params["model"]["encoder"] = jax.tree.map(jnp.copy, teacher_params["model"]["encoder"])
    optimizer = make_optimizer(params, mode == "frozen")
    opt_state = optimizer.init(params)
    step = jax.jit(make_step(teacher, student, optimizer, mode == "frozen"))
    shape = (batch_size, teacher.config.num_mel_bins, 3000)
    log_mel = jax.random.normal(jax.random.key(0), shape)
    tokens = jax.random.randint(jax.random.key(1), (batch_size, length), 0, 50_000)
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        params, opt_state, loss = step(params, opt_state, teacher_params, log_mel, tokens)
        loss.block_until_ready()
        seconds.append(time.perf_counter() - start)
    print_times(seconds)


def whisper(dims: dict[str, int], decoder_layers: int) -> Any:
    config = WhisperConfig(
        d_model=dims["n_state"],
        encoder_layers=dims["n_audio_layer"],
        decoder_layers=decoder_layers,
        encoder_attention_heads=dims["n_audio_head"],
        decoder_attention_heads=dims["n_text_head"],
        encoder_ffn_dim=dims["n_audio_mlp"],
        decoder_ffn_dim=dims["n_text_mlp"],
        num_mel_bins=dims["n_mels"],
        vocab_size=dims["n_vocab"],
        dropout=0.0,
    )
    return FlaxWhisperForConditionalGeneration(
        config,
        dtype=jnp.bfloat16,
        _do_init=False,
        input_shape=(1, dims["n_mels"], 2 * dims["n_audio_ctx"]),
    )


def plan_step(dims_file: str, topology: str, batch_size: int, length: int, program: str) -> None:
    """Compiles a step for a slice that need not be there."""
    dims = json.loads(Path(dims_file).read_text())
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    everywhere, by_row = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    teacher, student = whisper(dims, dims["n_text_layer"]), whisper(dims, 2)
    mel_shape = (dims["n_mels"], 2 * dims["n_audio_ctx"])

    def shapes(tree: Any, dtype: Any = None) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=everywhere), tree
        )

    def params_of(model: Any, dtype: Any) -> Any:
        key = jax.random.key(0)
        return shapes(jax.eval_shape(lambda k: model.init_weights(k, (1, *mel_shape)), key), dtype)

    teacher_params, params = params_of(teacher, jnp.bfloat16), params_of(student, jnp.float32)
    optimizer = make_optimizer(params, freezes_encoder=True)
    opt_state = shapes(jax.eval_shape(optimizer.init, params))
    log_mel = jax.ShapeDtypeStruct((batch_size, *mel_shape), jnp.bfloat16, sharding=by_row)
    tokens = jax.ShapeDtypeStruct((batch_size, length), jnp.int32, sharding=by_row)
    step = jax.jit(make_step(teacher, student, optimizer, True), donate_argnums=(0, 1))
    started = time.perf_counter()
    lowered = step.lower(params, opt_state, teacher_params, log_mel, tokens)
    compiled = lowered.compile(compiler_options=COMPILER_OPTIONS)
    seconds = time.perf_counter() - started
    Path(program).write_text(compiled.as_text())
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    report = {
        "argument_bytes": memory.argument_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes + results,
        "seconds": [seconds],
        "own_count": {name: compiled.cost_analysis()[name] for name in ("flops", "bytes accessed")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    kind, path, name, batch, targets, last = sys.argv[1:7]
    if kind == "step":
        time_step(path, name, int(batch), int(targets), int(last))
    else:
        plan_step(path, name, int(batch), int(targets), last)
