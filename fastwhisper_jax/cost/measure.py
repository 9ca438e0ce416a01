"""Compiling a program for devices that are not there, and what that tells."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from fastwhisper_jax.cost.chips import Chip
from fastwhisper_jax.cost.hlo.cost import Cost, program_cost
from fastwhisper_jax.cost.hlo.text import parse
from fastwhisper_jax.cost.roofline import Roofline, roofline

GIB = 2**30
# Whether jax keeps compiled programs on disk.
ENABLED = "jax_enable_compilation_cache"
# Collectives apart from the arithmetic that they overlap with, so that both can be counted: fused,
# one appears as parts of many instructions.
COMPILER_OPTIONS = {"xla_tpu_enable_async_collective_fusion": "false"}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A compiled program on one chip.

    Attributes:
        argument_gib: what it is given: parameters, state, batch.
        temp_gib: what it needs beside, and results that take no argument's place.
        cost: counted in the compiled program.
        roofline: of that cost on the chip.
        compile_seconds: it took here.
    """

    argument_gib: float
    temp_gib: float
    cost: Cost
    roofline: Roofline
    compile_seconds: float

    @property
    def total_gib(self) -> float:
        return self.argument_gib + self.temp_gib


def measure(function: Any, arguments: tuple[Any, ...], chip: Chip) -> Measured | None:
    """Compiles a jitted function for shapes that carry shardings; None: it cannot fit the chip."""
    started = time.perf_counter()
    try:
        with _without_cache():
            compiled = function.lower(*arguments).compile(compiler_options=COMPILER_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise
    seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    cost = program_cost(parse(compiled.as_text()))
    return Measured(
        argument_gib=memory.argument_size_in_bytes / GIB,
        temp_gib=(memory.temp_size_in_bytes + kept) / GIB,
        cost=cost,
        roofline=roofline(cost, chip),
        compile_seconds=seconds,
    )


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Compiles anew: what jax keeps on disk is read back onto devices, and here are none."""
    before = getattr(jax.config, ENABLED)
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(use: bool) -> None:
    jax.config.update(ENABLED, use)
    # Whether there is a cache is looked up once; this forgets it.
    compilation_cache.reset_cache()
