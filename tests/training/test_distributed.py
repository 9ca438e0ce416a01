"""A machine by itself asks nobody; the environment alone says that there are others."""

import importlib.util

import jax
import numpy as np
import pytest

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training import distributed as processes

# As JAX leaves the environment where it finds no chip.
NO_CHIP = {"TPU_SKIP_MDS_QUERY": "1"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},  # a batch script itself is no task of several
        {"SLURM_STEP_NUM_TASKS": "1", "OMPI_COMM_WORLD_SIZE": "1", "MEGASCALE_NUM_SLICES": "1"},
    ],
)
def test_one_process_joins_nothing(environment, monkeypatch):
    monkeypatch.setattr(processes.os, "environ", NO_CHIP | environment)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("asked to join"))
    processes.join()


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_COORDINATOR_ADDRESS": "host:1234"},
        {"SLURM_STEP_NUM_TASKS": "4"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"MEGASCALE_NUM_SLICES": "2"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"TPU_PROCESS_ADDRESSES": "a:8476,b:8476"},
    ],
)
def test_what_starts_several_processes_is_seen(environment):
    assert processes.is_called_for(NO_CHIP | environment)


@pytest.mark.parametrize(
    ("platforms", "joins"), [(None, True), ("tpu,cpu", True), ("", True), ("cpu", False)]
)
def test_a_machine_with_chips_is_left_to_jax_unless_they_are_not_used(
    monkeypatch, platforms, joins
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    environment = {} if platforms is None else {"JAX_PLATFORMS": platforms}
    assert processes.has_tpu(environment) == joins
    assert not processes.has_tpu(NO_CHIP | environment)


def test_chips_without_a_cluster_stand_alone(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(processes, "has_tpu", lambda _: True)
    processes.join()


def test_processes_started_by_hand_are_told_by_three_variables(monkeypatch):
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **named: given.update(named))
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    processes.join()
    assert given == {"num_processes": 2, "process_id": 1}


@pytest.mark.parametrize("number", ["one", "-1", ""])
def test_a_number_that_is_none_is_an_input_error(monkeypatch, number):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", number)
    with pytest.raises(InputError, match=f"JAX_NUM_PROCESSES='{number}' must be a number"):
        processes.join()


def test_a_run_that_cannot_be_joined_is_an_input_error(monkeypatch):
    def initialize(**_):
        raise ValueError("Number of processes\nmust be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    with pytest.raises(InputError, match=r"cannot join .* \(Number of processes must be defined"):
        processes.join()


def test_a_process_that_was_given_something_else_says_so(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    theirs = np.frombuffer(bytes.fromhex("ab" * 32), np.uint8)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", lambda _: theirs)
    processes.check_agreement("data", "ab" * 32)
    with pytest.raises(InputError, match="process 1 has another data than process 0"):
        processes.check_agreement("data", "ab" * 31 + "ac")


def test_alone_an_error_passes_as_it_is():
    with pytest.raises(KeyError), processes.ended_together():
        raise KeyError
    processes.check_agreement("data", "00" * 32)
    processes.wait_for_all("nothing")
