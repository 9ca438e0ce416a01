"""The least time that a chip needs for a program: the time of its slowest resource."""

import dataclasses

from fastwhisper_jax.cost.chips import Chip
from fastwhisper_jax.cost.hlo.cost import CROSS_SLICE, Cost


@dataclasses.dataclass(frozen=True)
class Roofline:
    """seconds = max(flops / peak, HBM bytes / bandwidth, collective bytes / interconnect).

    Bytes from other slices use the data centre's network, which is separate from the interconnect
    within a slice. The slower of the two counts as "collectives".

    Attributes:
        seconds: the greatest of the three times; a real step takes longer.
        bound: the resource that takes it: "flops", "bytes" or "collectives".
        parts: the seconds of each resource.
    """

    seconds: float
    bound: str
    parts: dict[str, float]


def roofline(cost: Cost, chip: Chip) -> Roofline:
    """The roofline of a program's cost on one chip."""
    collectives = dict(cost.collective_bytes)
    across = collectives.pop(CROSS_SLICE, 0.0)
    collective_seconds = sum(collectives.values()) / chip.interconnect_bandwidth
    if across:
        assert chip.network_bandwidth is not None, f"several slices of {chip.name}"
        collective_seconds = max(collective_seconds, across / chip.network_bandwidth)
    parts = {
        "flops": cost.flops / chip.peak_flops,
        # Arrays in the chip's own memory do not use the bandwidth of HBM.
        "bytes": cost.hbm_bytes / chip.hbm_bandwidth,
        "collectives": collective_seconds,
    }
    bound = max(parts, key=lambda name: parts[name])
    return Roofline(parts[bound], bound, parts)
