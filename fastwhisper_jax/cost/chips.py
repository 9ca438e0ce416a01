"""What a chip of each TPU generation can do, as Google publishes it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        name: of the generation.
        peak_flops: bfloat16 operations a second, of all its cores.
        hbm_gib: main memory.
        hbm_bandwidth: bytes a second, read and written together.
        interconnect_bandwidth: bytes a second that it receives over all links to its neighbours:
            half of the bidirectional bandwidth that is published.
        network_bandwidth: bytes a second that it receives from other slices, over the data centre's
            network; None where that is not published.
    """

    name: str
    peak_flops: float
    hbm_gib: float
    hbm_bandwidth: float
    interconnect_bandwidth: float
    network_bandwidth: float | None


# Source: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, tables of key specifications; v4's
# interconnect, which is not in its table: Jouppi et al., "TPU v4" (arXiv 2304.01433), 6 links of
# 50 GB/s in each direction. The network is published a pod of 256 chips for v5e and v6e.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32, 1200e9, 300e9, None),
        Chip("v5e", 197e12, 16, 819e9, 200e9, 6.4e12 / 8 / 256),
        Chip("v5p", 459e12, 95, 2765e9, 600e9, 50e9 / 8),
        Chip("v6e", 918e12, 32, 1638e9, 400e9, 25.6e12 / 8 / 256),
    )
}
