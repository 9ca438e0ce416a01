"""The trip counts of compiled loops."""

import re

from fastwhisper_jax.cost.hlo.text import Computation, Instruction, Program


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int:
    """The number of iterations of a `while`: as the compiler noted it, or from its condition.

    Raises:
        ValueError: the condition does not compare with a constant.
    """
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"\}', loop.attributes):
        return int(known.group(1))
    condition = program.computations[loop.attribute("condition") or ""]
    body = program.computations[loop.attribute("body") or ""]
    root = next(i for i in condition.values() if i.is_root)
    if root.opcode == "fusion":
        # The comparison is inside the fusion, and compares the fusion's operands.
        fused = program.computations[root.attribute("calls") or ""]
        comparison = next(i for i in fused.values() if i.is_root)
        numbers = [int(fused[name].arguments) for name in comparison.operands]
        sides = [condition[root.operands[number]] for number in numbers]
    else:
        comparison = root
        sides = [condition[name] for name in root.operands]
    direction = comparison.attribute("direction")
    index = next((i for i in sides if i.opcode == "get-tuple-element"), None)
    limit = next((_constant(condition, i) for i in sides if i is not index), None)
    if index is None or limit is None or direction not in ("LT", "LE", "NE", "GT", "GE"):
        raise ValueError(f"loop {loop.name}: cannot read a trip count from {root.name}")
    number = int(index.attribute("index") or 0)
    start, step = _start(computation, loop, number), _step(body, number)
    inclusive = direction in ("LE", "GE")
    return max(0, (limit - start + (step if inclusive else step - (1 if step > 0 else -1))) // step)


def _constant(computation: Computation, at: Instruction) -> int | None:
    while at.opcode in ("bitcast", "copy", "convert") and at.operands:
        at = computation[at.operands[0]]
    if at.opcode != "constant":
        return None
    return int(at.arguments)


def _start(computation: Computation, loop: Instruction, number: int) -> int:
    """The value of the counter before the loop; 0 if the program does not show it."""
    initial = computation.get(loop.operands[0])
    if initial is None or initial.opcode != "tuple":
        return 0
    return _constant(computation, computation[initial.operands[number]]) or 0


def _step(body: Computation, number: int) -> int:
    """What an iteration adds to the counter; 1 if the program does not show it."""
    root = next(i for i in body.values() if i.is_root)
    if root.opcode != "tuple":
        return 1
    counter = body[root.operands[number]]
    if counter.opcode != "add":
        return 1
    added = [_constant(body, body[name]) for name in counter.operands]
    return next((x for x in added if x), 1)
