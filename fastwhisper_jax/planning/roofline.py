"""The least time that a chip needs for a program: its slowest resource, all others hidden."""

import dataclasses

from fastwhisper_jax.planning.chips import Chip
from fastwhisper_jax.planning.hlo_cost import Cost


@dataclasses.dataclass(frozen=True)
class Roofline:
    """seconds = max(flops / peak, HBM bytes / bandwidth, collective bytes / interconnect).

    Attributes:
        seconds: the greatest of the three; a real step takes longer.
        bound: which one it is: "flops", "bytes" or "collectives".
        parts: the seconds of each.
    """

    seconds: float
    bound: str
    parts: dict[str, float]


def roofline(cost: Cost, chip: Chip) -> Roofline:
    """The roofline of a program's cost on one chip."""
    parts = {
        "flops": cost.flops / chip.peak_flops,
        # What stays in the chip's own memory takes none of the bandwidth of HBM.
        "bytes": cost.hbm_bytes / chip.hbm_bandwidth,
        "collectives": cost.collective_bytes.total() / chip.interconnect_bandwidth,
    }
    bound = max(parts, key=lambda name: parts[name])
    return Roofline(parts[bound], bound, parts)
