"""A slice is found by its name and has the chips of its shape."""

import importlib.util

import pytest

from fastwhisper_jax.cost.chips import CHIPS
from fastwhisper_jax.cost.topology import find_slice
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training.sharding import make_mesh


@pytest.mark.parametrize(
    ("name", "chips", "hosts"),
    [("v5e:2x4", 8, 1), ("v5e:4x4", 16, 4), ("v4:2x2x2", 8, 2), ("v6e:1x1", 1, 1)],
)
def test_a_slice_has_the_chips_and_hosts_of_its_shape(tpu_compiler, name, chips, hosts):
    """A v4 chip is one device, though it has two cores."""
    slice_ = find_slice(name)
    assert (len(slice_.devices), slice_.hosts) == (chips, hosts)
    assert slice_.chip is CHIPS[name.split(":")[0]]
    assert {device.platform for device in slice_.devices} == {"tpu"}


def test_several_slices_have_the_chips_of_all(tpu_compiler):
    slice_ = find_slice("v5e:2x4", 2)
    assert (slice_.name, len(slice_.devices), slice_.hosts) == ("2 x v5e:2x4", 16, 2)
    with pytest.raises(InputError, match="between slices of v4 is not published"):
        find_slice("v4:2x2x2", 2)


@pytest.mark.parametrize("name", ["v5e", "v5e:", "v9:2x2", "2x4", "v5e:2x4x", "v5e:axb"])
def test_a_name_that_is_no_slice_says_what_one_looks_like(name):
    with pytest.raises(InputError, match="such as v5e:2x4"):
        find_slice(name)


def test_a_shape_that_does_not_exist_is_the_users_error(tpu_compiler):
    with pytest.raises(InputError, match="v5e:3x5"):
        find_slice("v5e:3x5")


@pytest.mark.parametrize("name", ["v4:2x2x2", "v5e:4x4", "v5e:16x16", "v6e:4x4"])
def test_parameters_divide_over_8_chips_of_any_slice(tpu_compiler, name):
    """They divide even if no side of the slice is 8 chips long."""
    devices = list(find_slice(name).devices)
    mesh = make_mesh(-1, 8, devices=devices)
    assert mesh.shape == {"data": len(devices) // 8, "fsdp": 8, "tensor": 1}


def test_where_the_compiler_is_missing_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"libtpu.*; pip install '\.\[plan\]' in the folder of"):
        find_slice("v5e:2x4")
