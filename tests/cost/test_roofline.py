"""A roofline is the time of the slowest of three resources."""

from collections import Counter

import pytest

from fastwhisper_jax.cost.chips import CHIPS
from fastwhisper_jax.cost.hlo.cost import Cost
from fastwhisper_jax.cost.roofline import roofline

CHIP = CHIPS["v5e"]


@pytest.mark.parametrize(
    ("cost", "bound", "seconds"),
    [
        (Cost(flops=197e12, bytes_accessed=1e15, hbm_bytes=1.0), "flops", 1.0),
        (Cost(flops=1.0, hbm_bytes=2 * 819e9), "bytes", 2.0),
        (
            Cost(collective_bytes=Counter({"all-gather": 400e9, "all-reduce": 200e9})),
            "collectives",
            3.0,
        ),
        (
            # Two networks work at once: 3.125 GB/s between slices, 200 GB/s within one.
            Cost(collective_bytes=Counter({"all-gather": 400e9, "cross-slice": 12.5e9})),
            "collectives",
            4.0,
        ),
    ],
)
def test_it_is_the_slowest_resources_time(cost, bound, seconds):
    least = roofline(cost, CHIP)
    assert least.bound == bound
    assert least.seconds == pytest.approx(seconds)
    assert max(least.parts.values()) == least.seconds
