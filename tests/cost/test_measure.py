"""A program is measured for devices that are not there."""

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from fastwhisper_jax.cost.measure import measure
from fastwhisper_jax.cost.topology import find_slice


def test_a_program_is_measured_twice_with_jax_keeping_what_it_compiles(tpu_compiler):
    """Reading such a program back from jax's cache would be a warning, which is an error here."""
    slice_ = find_slice("v5e:2x2")
    on_chip = SingleDeviceSharding(slice_.devices[0])
    square = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=on_chip)
    jax.jit(lambda x: x + 1)(1.0)
    for _ in range(2):
        measured = measure(jax.jit(lambda x: x @ x), (square,), slice_.chip)
        assert measured is not None and measured.cost.flops == 2 * 256**3
    assert jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
