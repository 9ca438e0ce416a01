"""Counts what a compiled program does on each device: flops, memory traffic, collectives.

The compiler's own `cost_analysis` counts the body of a loop once. Here it is multiplied by the
loop's trip count. All else follows XLA's `HloCostAnalysis`: a fusion reads its operands and writes
its results; a sliced operand counts only the bytes sliced; a custom kernel counts its own cost
estimate.
"""

import dataclasses
import re
from collections import Counter

from fastwhisper_jax.cost.hlo.collectives import COLLECTIVES, received_bytes
from fastwhisper_jax.cost.hlo.flops import convolution_flops, dot_flops
from fastwhisper_jax.cost.hlo.loops import trip_count
from fastwhisper_jax.cost.hlo.text import Computation, Instruction, Program, Shape

# What a device receives from other slices. In the compiled program it passes through the host.
CROSS_SLICE = "cross-slice"
_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
# Custom calls that only name or join memory.
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "Sharding", "SPMDFullToShardShape"}
_SLICES = {"dynamic-slice", "gather", "slice"}
# The update operand of each opcode. Only its bytes are read and written; the rest stays in place.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}


@dataclasses.dataclass(frozen=True)
class Cost:
    """The work of one device.

    Attributes:
        flops: operations of matrix products, convolutions and kernels. A multiplication and an
            addition are two.
        bytes_accessed: bytes that instructions read and write, in any memory.
        hbm_bytes: the part of `bytes_accessed` in the device's main memory.
        collective_bytes: bytes received from other devices, by kind of collective.
        kernel_flops: the part of `flops` that kernels declare.
    """

    flops: float = 0.0
    bytes_accessed: float = 0.0
    hbm_bytes: float = 0.0
    collective_bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    kernel_flops: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.bytes_accessed + other.bytes_accessed,
            self.hbm_bytes + other.hbm_bytes,
            self.collective_bytes + other.collective_bytes,
            self.kernel_flops + other.kernel_flops,
        )

    def times(self, count: int) -> "Cost":
        """The cost of running it `count` times."""
        return Cost(
            self.flops * count,
            self.bytes_accessed * count,
            self.hbm_bytes * count,
            Counter({kind: x * count for kind, x in self.collective_bytes.items()}),
            self.kernel_flops * count,
        )


def program_cost(program: Program) -> Cost:
    """The cost of running a program's entry once, on one device."""
    return _computation_cost(program, program.computations[program.entry])


def _computation_cost(program: Program, computation: Computation) -> Cost:
    costs = (_instruction_cost(program, computation, i) for i in computation.values())
    return sum(costs, Cost())


def _instruction_cost(program: Program, computation: Computation, at: Instruction) -> Cost:
    opcode = at.opcode.removesuffix("-start")
    if at.opcode in _FREE or at.opcode.endswith(("-done", "-update")):
        return Cost()
    if opcode == "while":
        body = _called(program, at, "body")
        return _computation_cost(program, body).times(trip_count(program, computation, at))
    if opcode in ("call", "async"):
        name = "to_apply" if at.attribute("to_apply") else "calls"
        return _computation_cost(program, _called(program, at, name))
    if opcode == "conditional":
        return _costliest_branch(program, at)
    traffic = _traffic(program, computation, at)
    cost = Cost(
        bytes_accessed=sum(size for size, _ in traffic),
        hbm_bytes=sum(size for size, space in traffic if space == 0),
    )
    if opcode == "fusion":
        return cost + _fused_cost(program, _called(program, at, "calls"))
    return cost + _arithmetic(computation, at)


def _fused_cost(program: Program, fused: Computation) -> Cost:
    """Flops and collectives of a fusion. Its memory traffic is counted where it is called."""
    total = Cost()
    for instruction in fused.values():
        if instruction.opcode == "fusion":
            total += _fused_cost(program, _called(program, instruction, "calls"))
        else:
            total += _arithmetic(fused, instruction)
    return total


def _arithmetic(computation: Computation, at: Instruction) -> Cost:
    kind = at.opcode.removesuffix("-start")
    if kind == "all-reduce" and 'from-cross-replica-sharding="true"' in at.attributes:
        # The TPU compiler fuses a reduce-scatter as an all-reduce with the slice that is kept.
        kind = "reduce-scatter"
    if at.opcode == "recv" and "is_host_transfer=true" in at.attributes:
        return Cost(collective_bytes=Counter({CROSS_SLICE: float(at.shapes[0].bytes)}))
    if kind in COLLECTIVES:
        return Cost(collective_bytes=Counter({kind: received_bytes(kind, computation, at)}))
    if kind == "dot":
        return Cost(flops=dot_flops(computation, at))
    if kind == "convolution":
        return Cost(flops=convolution_flops(computation, at))
    if kind == "custom-call":
        flops = re.search(r'"flops":"?(\d+)', at.attributes)
        if flops:
            return Cost(flops=float(flops.group(1)), kernel_flops=float(flops.group(1)))
    return Cost()


def _costliest_branch(program: Program, at: Instruction) -> Cost:
    names = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", at.attributes)
    if branches := re.search(r"branch_computations=\{([^}]*)\}", at.attributes):
        names += [name.strip().lstrip("%") for name in branches.group(1).split(",")]
    costs = [_computation_cost(program, program.computations[name]) for name in names]
    return max(costs, key=lambda cost: (cost.flops, cost.bytes_accessed))


def _called(program: Program, at: Instruction, name: str) -> Computation:
    return program.computations[at.attribute(name) or ""]


def _traffic(
    program: Program, computation: Computation, at: Instruction
) -> list[tuple[float, int]]:
    """(bytes, memory space) of everything that an instruction reads or writes."""
    opcode = at.opcode.removesuffix("-start")
    if opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', at.attributes)
        if target and target.group(1) in _FREE_CALLS:
            return []
    operands = [computation[name] for name in at.operands]
    if opcode in _SLICES:
        source = operands[0].shapes[0]
        shape = at.shapes[0] if at.opcode == opcode else at.shapes[-2 if len(at.shapes) > 2 else -1]
        return [(shape.bytes, source.memory_space), (shape.bytes, shape.memory_space)]
    if opcode in _UPDATES:
        update = operands[_UPDATES[opcode]].shapes[0]
        return [(update.bytes, update.memory_space), (update.bytes, at.shapes[0].memory_space)]
    if opcode == "copy" and at.opcode == "copy-start":
        # The results are destination, source and context.
        return [(shape.bytes, shape.memory_space) for shape in at.shapes[:2]]
    if opcode == "fusion":
        fused = _called(program, at, "calls")
        reads = [
            (_bytes_read(program, fused, number, shape), shape.memory_space)
            for number, operand in enumerate(operands)
            for shape in operand.shapes
        ]
        return reads + _fusion_results(fused, at)
    results = at.shapes[-1:] if at.opcode.endswith("-start") else at.shapes
    arrays = [shape for operand in operands for shape in operand.shapes] + list(results)
    return [(shape.bytes, shape.memory_space) for shape in arrays]


def _bytes_read(program: Program, fused: Computation, number: int, shape: Shape) -> float:
    """Bytes that a fusion reads of an operand: the whole operand, or only its slices."""
    parameter = next(
        (i for i in fused.values() if i.opcode == "parameter" and i.arguments == str(number)), None
    )
    if parameter is None:
        return shape.bytes
    total = 0.0
    for user in fused.values():
        for position, name in enumerate(user.operands):
            if name != parameter.name:
                continue
            if user.opcode in _SLICES and position == 0:
                total += user.bytes
            elif user.opcode in _UPDATES and position == 0:
                continue
            elif user.opcode == "fusion":
                total += _bytes_read(program, _called(program, user, "calls"), position, shape)
            else:
                return shape.bytes
    return min(total, shape.bytes)


def _fusion_results(fused: Computation, at: Instruction) -> list[tuple[float, int]]:
    """(bytes, memory space) of everything that a fusion writes."""
    root = next(i for i in fused.values() if i.is_root)
    parts = [fused[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return [
        (_bytes_written(fused, part, shape), shape.memory_space)
        for part, shape in zip(parts, at.shapes, strict=False)
    ]


def _bytes_written(fused: Computation, part: Instruction, shape: Shape) -> float:
    """Bytes that a fusion writes for one of its results."""
    while part.opcode in ("bitcast", "copy") and part.operands:
        part = fused[part.operands[0]]
    if part.opcode in _UPDATES:
        return fused[part.operands[_UPDATES[part.opcode]]].bytes
    if part.opcode == "parameter":
        return 0.0  # an operand that is passed on
    return shape.bytes
