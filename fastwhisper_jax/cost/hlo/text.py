"""Parses the text of a compiled program (optimised HLO), as far as counting needs it."""

import dataclasses
import math
import re
from collections.abc import Iterator

ITEM_BITS = {"pred": 8, "token": 0, "opaque": 0}

_SHAPE = re.compile(r"\b([a-z]+[0-9a-z]*)\[([0-9,]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of an array in a program.

    Attributes:
        dtype: HLO's name of the dtype, such as "bf16".
        dims: size of each dimension.
        memory_space: 0 is the device's main memory (HBM); other numbers are memory on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = ITEM_BITS.get(self.dtype)
        if bits is None:
            digits = re.search(r"\d+", self.dtype)
            bits = int(digits.group()) if digits else 0
        return self.elements * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: its name, unique in its computation.
        opcode: what it does, such as "fusion".
        shapes: the shapes of its results; several for a tuple.
        operands: the names of its operands, in order.
        arguments: the text in parentheses: a constant's value, or a parameter's number.
        attributes: the text after the parentheses.
        is_root: whether it is the computation's result.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """The value of `name=value` in the attributes, without a leading %; braces are kept."""
        match = re.search(rf"\b{name}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
        return match.group(1).lstrip("%") if match else None

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, and the name of the one that runs first."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """Parses what `compiled.as_text()` returns."""
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header.group(2)] = {}
            entry = header.group(2) if header.group(1) else entry
        elif match := _INSTRUCTION.match(line):
            instruction = _parse_instruction(match.group(2), match.group(3), bool(match.group(1)))
            if instruction is not None:
                current[instruction.name] = instruction
    assert entry, "a program's text has an ENTRY computation"
    return Program(computations, entry)


def _parse_instruction(name: str, text: str, is_root: bool) -> Instruction | None:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.find(" ")
    opcode = _OPCODE.match(text, end)
    if opcode is None:
        return None
    closing = _closing(text, opcode.end() - 1)
    arguments = text[opcode.end() : closing]
    return Instruction(
        name=name,
        opcode=opcode.group(1),
        shapes=tuple(_shapes(text[:end])),
        operands=tuple(_NAME.findall(arguments)),
        arguments=arguments,
        attributes=text[closing + 1 :],
        is_root=is_root,
    )


def _closing(text: str, start: int) -> int:
    """The index at which the parenthesis opened at `start` closes."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses: {text[start : start + 80]}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _SHAPE.findall(text):
        space = _MEMORY_SPACE.search(layout)
        sizes = tuple(int(size) for size in dims.split(",") if size)
        yield Shape(dtype, sizes, int(space.group(1)) if space else 0)
