"""One contender of plan.py: the same step by transformers' last Flax Whisper, compiled for a TPU.

    run by the benchmark as: flax_plan.py DIMS.json TOPOLOGY BATCH TOKENS PROGRAM.txt

Runs under an interpreter with transformers 4.57, Flax and libtpu; this package is not imported.
Everything is a shape. As Distil-Whisper's Flax trainer does it: parameters and optimiser state
whole on every chip, the batch divided, bfloat16 computation, the encoder run once and frozen. The
compiled program is written to PROGRAM.txt: the benchmark counts both by one rule.
"""

import json
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
from transformers import FlaxWhisperForConditionalGeneration, WhisperConfig  # type: ignore[attr-defined]

# libtpu is not to look for the TPU that it runs on: there is none.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
TEMPERATURE = 2.0
COMPILER_OPTIONS = {"xla_tpu_enable_async_collective_fusion": "false"}


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
    shape = (1, dims["n_mels"], 2 * dims["n_audio_ctx"])
    return FlaxWhisperForConditionalGeneration(
        config, dtype=jnp.bfloat16, _do_init=False, input_shape=shape
    )


def main(dims_file: str, topology: str, batch_size: int, length: int, program: str) -> None:
    dims = json.loads(Path(dims_file).read_text())
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    everywhere, by_row = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    teacher, student = whisper(dims, dims["n_text_layer"]), whisper(dims, 2)

    def shapes(tree: Any, dtype: Any = None) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=everywhere), tree
        )

    def params_of(model: Any, dtype: Any) -> Any:
        shape = (1, dims["n_mels"], 2 * dims["n_audio_ctx"])
        init = jax.eval_shape(lambda key: model.init_weights(key, shape), jax.random.key(0))
        return shapes(init, dtype)

    teacher_params, params = params_of(teacher, jnp.bfloat16), params_of(student, jnp.float32)
    label = jax.tree_util.tree_map_with_path(
        lambda path, _: "freeze" if path[1].key == "encoder" else "train", params
    )
    parts = {"train": optax.adamw(1e-4), "freeze": optax.set_to_zero()}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.multi_transform(parts, label))
    opt_state = shapes(jax.eval_shape(optimizer.init, params))
    mel_shape = (batch_size, dims["n_mels"], 2 * dims["n_audio_ctx"])
    log_mel = jax.ShapeDtypeStruct(mel_shape, jnp.bfloat16, sharding=by_row)
    tokens = jax.ShapeDtypeStruct((batch_size, length), jnp.int32, sharding=by_row)

    def loss_fn(params: Any, teacher_params: Any, log_mel: jax.Array, tokens: jax.Array) -> Any:
        taught = teacher(log_mel, tokens, params=teacher_params)
        encoder_states = jax.lax.stop_gradient(taught.encoder_last_hidden_state)
        logits = student.decode(tokens, (encoder_states,), params=params).logits.astype(jnp.float32)
        target = jax.lax.stop_gradient(taught.logits).astype(jnp.float32) / TEMPERATURE
        log_target, log_learnt = map(jax.nn.log_softmax, (target, logits / TEMPERATURE))
        kl = (jnp.exp(log_target) * (log_target - log_learnt)).sum(-1).mean() * TEMPERATURE**2
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()
        return 0.8 * ce + kl

    def step(params: Any, opt_state: Any, *rest: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, *rest)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    started = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, opt_state, teacher_params, log_mel, tokens
    )
    compiled = lowered.compile(compiler_options=COMPILER_OPTIONS)
    seconds = time.perf_counter() - started
    Path(program).write_text(compiled.as_text())
    memory = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    report = {
        "argument_bytes": memory.argument_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes + kept,
        "seconds": [seconds],
        "own_count": {name: compiled.cost_analysis()[name] for name in ("flops", "bytes accessed")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
