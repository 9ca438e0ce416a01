"""TPU slices to compile for, by their name: nothing of them has to be there."""

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

# libtpu asks its surroundings which TPU it runs on, and locks it against other processes; there is
# none to ask about.
_WITHOUT_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# One host holds all chips of these, others share a slice by four.
_ONE_HOST_SHAPES = {"1x1", "2x2", "2x4"}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a TPU pod, or several that only the data centre's network joins.

    Attributes:
        name: such as "v5e:2x4"; "2 x v5e:2x4" of two.
        chip: what each of its chips can do.
        devices: one a chip, to make a mesh of.
        hosts: that all chips belong to.
    """

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...]
    hosts: int


def find_slice(name: str, slices: int = 1) -> Slice:
    """The slice of a name "generation:shape"; `jax` must not have run on a TPU before.

    Args:
        name: of each slice.
        slices: how many of them.

    Raises:
        InputError: no such generation or shape, or libtpu is not installed.
    """
    if slices < 1:
        raise InputError(f"--slices {slices}: must be at least 1")
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not found or found.group(1) not in CHIPS:
        raise InputError(
            f"--topology {name}: must be a generation ({', '.join(CHIPS)}) and the shape of a "
            "slice in chips, such as v5e:2x4 or v4:2x2x2"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"plan needs libtpu, the TPU compiler, which is not installed; {extra('plan')}"
        )
    generation, shape = found.groups()
    if slices > 1 and CHIPS[generation].network_bandwidth is None:
        raise InputError(
            f"--slices {slices}: what joins slices of {generation} is not published; plan for one"
        )
    chips = slices * math.prod(int(size) for size in shape.split("x"))
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if generation in ("v4", "v5p"):
        # Else a device is a core, of which these chips have two.
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
