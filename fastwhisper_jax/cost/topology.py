"""TPU slices to compile for, by their name. They need not be there."""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from fastwhisper_jax.cost.chips import CHIPS, Chip
from fastwhisper_jax.errors import InputError, extra

# libtpu would ask the machine which TPU it runs on, and lock that TPU. These variables answer for a
# machine without one.
_WITHOUT_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# One host holds all chips of these slices. In other slices each host holds four chips.
_ONE_HOST_SHAPES = {"1x1", "2x2", "2x4"}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a TPU pod, or several slices joined by the data centre's network.

    Attributes:
        name: such as "v5e:2x4", or "2 x v5e:2x4" for two slices.
        chip: the performance of each of its chips.
        devices: one device per chip, to make a mesh of.
        hosts: number of hosts.
    """

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...]
    hosts: int


def find_slice(name: str, slices: int = 1) -> Slice:
    """Finds the slice with a name "generation:shape". `jax` must not have run on a TPU before.

    Args:
        name: of each slice.
        slices: number of slices.

    Raises:
        InputError: there is no such generation or shape, or libtpu is not installed.
    """
    if slices < 1:
        raise InputError(f"--slices {slices}: must be at least 1")
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not match or match.group(1) not in CHIPS:
        raise InputError(
            f"--topology {name}: must be a generation ({', '.join(CHIPS)}) and the shape of a "
            "slice in chips, such as v5e:2x4 or v4:2x2x2"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"plan needs libtpu, the TPU compiler, which is not installed; {extra('plan')}"
        )
    generation, shape = match.groups()
    if slices > 1 and CHIPS[generation].network_bandwidth is None:
        raise InputError(
            f"--slices {slices}: the bandwidth between slices of {generation} is not published; "
            "use one slice"
        )
    chips = slices * math.prod(int(size) for size in shape.split("x"))
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if generation in ("v4", "v5p"):
        # These chips have two cores. Without this option each core would be a device.
        options["chip_config_name"] = "megacore"
    elif shape in _ONE_HOST_SHAPES:
        options["chips_per_host_bounds"] = [*map(int, shape.split("x")), 1]
    for variable, value in _WITHOUT_TPU.items():
        os.environ.setdefault(variable, value)
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except (jax.errors.JaxRuntimeError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"--topology {name} cannot be described ({reason}); name the shape of a slice that "
            "exists, such as v5e:2x4 or v4:2x2x2"
        ) from error
    devices: list[Any] = list(described.devices)
    if len(devices) != chips:
        raise InputError(f"--topology {name} has {len(devices)} devices, not {chips} chips")
    hosts = {device.process_index for device in devices}
    label = name if slices == 1 else f"{slices} x {name}"
    return Slice(label, CHIPS[generation], tuple(devices), len(hosts))
