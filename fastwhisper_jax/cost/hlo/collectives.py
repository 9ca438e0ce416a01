"""The bytes that a device receives in a compiled program's collectives."""

import math
import re

from fastwhisper_jax.cost.hlo.text import Computation, Instruction

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


def received_bytes(kind: str, computation: Computation, at: Instruction) -> float:
    """Bytes that a device receives in a collective, by the best possible algorithm."""
    operand = sum(computation[name].bytes for name in at.operands)
    if kind == "collective-permute":
        return operand
    size = _group_size(at)
    others = (size - 1) / size
    if kind == "all-gather":
        return operand * (size - 1)
    return operand * others * (2 if kind == "all-reduce" else 1)


def _group_size(at: Instruction) -> int:
    """The number of devices in a group of a collective, read from any of HLO's notations."""
    text = at.attributes
    if match := re.search(r"replica_groups=\{\{([0-9,]+)\}", text):
        return len(match.group(1).split(","))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", text):
        return int(match.group(2))
    # Axes of a mesh or parts of axes, such as mesh['a'=32,'b'=8], device_ids=(...) {'a':(1)4,'b'}
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match.group(2))
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    raise ValueError(f"no replica groups in {text[:200]}")
