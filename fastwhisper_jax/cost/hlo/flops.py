"""Floating-point operations of HLO's matrix products and convolutions.

The TPU compiler writes every matrix product as a convolution. A batched product becomes a dilated
convolution, in which most products are with inserted zeros and are never computed. So a position of
the window counts only where it meets an element of the input.

Source: XLA, `HloCostAnalysis::HandleDot` and `GetConvolutionFlops`.
"""

import math
import re

import numpy as np

from fastwhisper_jax.cost.hlo.text import Computation, Instruction


def dot_flops(computation: Computation, at: Instruction) -> int:
    """2 x elements of the result x elements contracted for each."""
    left = computation[at.operands[0]].shapes[0]
    axes = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", at.attributes)
    contracted = [int(axis) for axis in axes.group(1).split(",") if axis] if axes else []
    return 2 * at.shapes[0].elements * math.prod(left.dims[axis] for axis in contracted)


def convolution_flops(computation: Computation, at: Instruction) -> int:
    """2 x batch x features in x features out x positions where window and input meet."""
    left, right = (computation[name].shapes[0] for name in at.operands[:2])
    out = at.shapes[0]
    labels = at.attributes.split("dim_labels=")[1]
    match = re.match(r"(\w+)_(\w+)->(\w+)", labels)
    assert match, f"a convolution has dim_labels: {labels[:80]}"
    left_labels, right_labels, out_labels = match.groups()
    spatial = sorted(label for label in left_labels if label.isdigit())
    window = _Window(at.attributes, len(spatial))
    positions = math.prod(
        window.positions(
            axis, left.dims[left_labels.index(label)], out.dims[out_labels.index(label)]
        )
        for axis, label in enumerate(spatial)
    )
    groups = re.search(r"batch_group_count=(\d+)", at.attributes)
    batch = left.dims[left_labels.index("b")] // (int(groups.group(1)) if groups else 1)
    features = right.dims[right_labels.index("i")] * out.dims[out_labels.index("f")]
    return 2 * batch * features * positions


class _Window:
    """Reads `window={size=3x1 stride=... pad=... lhs_dilate=... rhs_dilate=...}`."""

    def __init__(self, attributes: str, rank: int) -> None:
        text = re.search(r"window=\{([^}]*)\}", attributes)
        fields = dict(field.split("=") for field in text.group(1).split()) if text else {}
        ones = "x".join("1" * rank)

        def sizes(name: str) -> list[int]:
            return [int(x) for x in fields.get(name, ones).split("x") if x]

        self.size, self.stride = sizes("size"), sizes("stride")
        self.input_dilation, self.dilation = sizes("lhs_dilate"), sizes("rhs_dilate")
        pads = fields.get("pad", "x".join(["0_0"] * rank)).split("x")
        self.pad = [int(pad.split("_")[0]) for pad in pads if pad]

    def positions(self, axis: int, input_size: int, output_size: int) -> int:
        """Counts the pairs of an output and an element of its window that meet an input element."""
        out = np.arange(output_size)[:, None] * self.stride[axis] - self.pad[axis]
        position = out + np.arange(self.size[axis])[None, :] * self.dilation[axis]
        step = self.input_dilation[axis]
        on_element = position % step == 0
        return int((on_element & (position >= 0) & (position // step < input_size)).sum())
