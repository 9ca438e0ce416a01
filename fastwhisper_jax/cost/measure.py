"""Compiles a program for devices that need not be there, and counts its cost and its memory."""

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
# The jax setting that keeps compiled programs on disk.
ENABLED = "jax_enable_compilation_cache"
# Keeps collectives apart from the arithmetic that they overlap with, so that both can be counted. A
# fused collective appears as parts of many instructions.
COMPILER_OPTIONS = {"xla_tpu_enable_async_collective_fusion": "false"}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A compiled program on one chip.

    Attributes:
        argument_gib: memory of its arguments: parameters, state, batch.
        temp_gib: memory of temporary arrays, and of results that do not reuse an argument's memory.
        cost: its work, counted in the compiled program.
        roofline: the least time of that work on the chip.
        compile_seconds: how long compiling took.
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
    """Compiles a jitted function for shapes with shardings; returns None if it does not fit."""
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
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    cost = program_cost(parse(compiled.as_text()))
    return Measured(
        argument_gib=memory.argument_size_in_bytes / GIB,
        temp_gib=(memory.temp_size_in_bytes + results) / GIB,
        cost=cost,
        roofline=roofline(cost, chip),
        compile_seconds=seconds,
    )


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Turns jax's cache on disk off, for loading a cached program needs the devices."""
    before = getattr(jax.config, ENABLED)
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(use: bool) -> None:
    jax.config.update(ENABLED, use)
    # jax looks only once whether there is a cache; this makes it look again.
    compilation_cache.reset_cache()
