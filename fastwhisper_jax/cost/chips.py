"""The published performance of one chip of each TPU generation."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        name: the generation.
        peak_flops: bfloat16 operations per second, of all its cores.
        hbm_gib: size of its main memory, in GiB.
        hbm_bandwidth: bytes per second, read and written together.
        interconnect_bandwidth: bytes per second that it receives over all links to its neighbours.
            This is half of the published bandwidth, which counts both directions.
        network_bandwidth: bytes per second that it receives from other slices, over the data
            centre's network; None if it is not published.
    """

    name: str
    peak_flops: float
    hbm_gib: float
    hbm_bandwidth: float
    interconnect_bandwidth: float
    network_bandwidth: float | None


# Source: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, tables of key specifications. The table
# of v4 leaves out its interconnect: Jouppi et al., "TPU v4" (arXiv 2304.01433), give it 6 links of
# 50 GB/s in each direction. For v5e and v6e the published network is that of a pod of 256 chips.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32, 1200e9, 300e9, None),
        Chip("v5e", 197e12, 16, 819e9, 200e9, 6.4e12 / 8 / 256),
        Chip("v5p", 459e12, 95, 2765e9, 600e9, 50e9 / 8),
        Chip("v6e", 918e12, 32, 1638e9, 400e9, 25.6e12 / 8 / 256),
    )
}
