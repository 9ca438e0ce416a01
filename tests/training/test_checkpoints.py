"""A checkpoint comes back bit for bit, or it is passed over for an older one."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastwhisper_jax.errors import InputError, IntegrityError
from fastwhisper_jax.training import checkpoints as module
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.named_leaves import named_leaves


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    self_teacher_params: dict | None
    moments: tuple


def make_state(seed, devices=1):
    """A state of three dtypes, with an absent subtree, its kernel sharded over `devices`."""
    mesh = jax.make_mesh(
        (devices,), ("fsdp",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )
    sharded = jax.NamedSharding(mesh, jax.P("fsdp"))
    replicated = jax.NamedSharding(mesh, jax.P())
    kernel = jax.device_put(jax.random.normal(jax.random.key(seed), (16, 32)), sharded)
    return State(
        step=jax.device_put(jnp.int32(seed), replicated),
        params={
            "kernel": kernel,
            "half": kernel.astype(jnp.bfloat16),
            "tied": jax.device_put(jnp.array([np.nan, -0.0, np.inf], jnp.float32), replicated),
        },
        self_teacher_params=None,
        moments=(kernel * 2, ()),
    )


def bits(tree):
    return [(leaf.dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def saved(tmp_path):
    """A directory with checkpoints 1 and 2."""
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), {"cursor": step})
    return tmp_path / "checkpoints"


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("devices", [1, 8])
def test_restored_equals_saved_bit_for_bit(tmp_path, devices):
    state = make_state(5, devices)
    metadata = {"cursor": 5, "config": "a1b2", "nested": {"values": [0.5, None, "é"]}}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(5, state, metadata)
        restored = checkpoints.restore(state)
    assert (restored.step, restored.metadata, restored.skipped) == (5, metadata, ())
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert restored.state.self_teacher_params is None
    assert bits(restored.state) == bits(state)
    assert restored.state.params["kernel"].sharding == state.params["kernel"].sharding


@pytest.mark.parametrize("before, after", [(8, 1), (8, 4), (1, 8)])
def test_restores_onto_another_device_count(tmp_path, before, after):
    state, elsewhere = make_state(5, before), make_state(0, after)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(5, state, {})
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored = checkpoints.restore(elsewhere)
    assert bits(restored.state) == bits(state)
    for got, wanted in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(elsewhere), strict=True
    ):
        assert got.sharding == wanted.sharding


def test_shapes_without_sharding_restore_onto_the_first_device(saved):
    with Checkpoints(saved) as checkpoints:
        restored = checkpoints.restore(jax.eval_shape(lambda: make_state(0)))
    assert bits(restored.state) == bits(make_state(2))
    assert restored.state.params["kernel"].devices() == {jax.devices()[0]}


def test_a_structure_may_follow_from_what_was_saved(saved):
    seen = []

    def abstract(names):
        seen.extend(names)
        return make_state(0)

    with Checkpoints(saved) as checkpoints:
        restored = checkpoints.restore(abstract)
    assert sorted(seen) == sorted(named_leaves(make_state(0)))
    assert bits(restored.state) == bits(make_state(2))


def test_donating_the_state_does_not_change_what_is_saved(tmp_path):
    update = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    x = jax.random.normal(jax.random.key(0), (512, 1024))
    before = np.array(x)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, {"x": x}, {})
        for _ in range(5):
            x = update(x)
        restored = checkpoints.restore({"x": x})
    np.testing.assert_array_equal(np.asarray(restored.state["x"]), before)


def test_keeps_the_newest(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in (1, 2, 10, 11):
            checkpoints.save(step, {"x": jnp.full(3, step)}, {})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 11]
        assert checkpoints.newest_good_step() == (11, ())
        older = checkpoints.restore({"x": jnp.zeros(3, jnp.int32)}, step=10)
    assert older.state["x"].tolist() == [10, 10, 10]


def test_nothing_saved_restores_nothing(tmp_path):
    with Checkpoints(tmp_path / "absent") as checkpoints:
        assert checkpoints.restore(make_state(0)) is None
    assert not (tmp_path / "absent").exists()


def test_one_flipped_bit_in_any_file_never_changes_a_restored_value(saved, tmp_path):
    for name in files_of(saved / "2"):
        copy = tmp_path / "copy"
        shutil.copytree(saved, copy)
        damaged = copy / "2" / name
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 0x10
        damaged.write_bytes(content)
        with Checkpoints(copy) as checkpoints:
            restored = checkpoints.restore(make_state(0))
        assert bits(restored.state) == bits(make_state(restored.step)), name
        written_by_the_rename = name in ("_CHECKPOINT_METADATA", "commit_success.txt")
        assert restored.step == (2 if written_by_the_rename else 1), name
        if restored.step == 1:
            (line,) = restored.skipped
            assert str(copy / "2") in line
            assert name in line or name == "digest.json"
        shutil.rmtree(copy)


@pytest.mark.parametrize("harm", ["truncate", "remove", "remove digest"])
def test_a_folder_that_is_not_whole_is_passed_over(saved, harm):
    largest = max((p for p in (saved / "2").rglob("*") if p.is_file()), key=os.path.getsize)
    if harm == "truncate":
        largest.write_bytes(largest.read_bytes()[:-1])
    elif harm == "remove":
        largest.unlink()
    else:
        (saved / "2" / "digest.json").unlink()
    with Checkpoints(saved) as checkpoints:
        restored = checkpoints.restore(make_state(0))
    assert restored.step == 1
    assert bits(restored.state) == bits(make_state(1))


def test_an_empty_folder_named_like_a_step_is_no_checkpoint(saved):
    (saved / "3").mkdir()
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.restore(make_state(0)).step == 2
        checkpoints.save(3, make_state(3), {})
        assert checkpoints.restore(make_state(0)).step == 3


def test_all_damaged_is_an_error_that_names_them(saved):
    for step in ("1", "2"):
        (saved / step / "state" / "manifest.ocdbt").write_bytes(b"")
    with Checkpoints(saved) as checkpoints, pytest.raises(IntegrityError, match="manifest.ocdbt"):
        checkpoints.restore(make_state(0))


def test_a_step_asked_for_is_that_step_or_an_error(saved):
    (saved / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(IntegrityError, match="damaged"):
            checkpoints.restore(make_state(0), step=1)
        with pytest.raises(InputError, match=r"no checkpoint of step 7 .* it has: 1, 2"):
            checkpoints.restore(make_state(0), step=7)


@pytest.mark.parametrize(("found", "error"), [(1, None), (-1, InputError), (-2, IntegrityError)])
def test_what_process_0_found_of_a_step_holds_for_all(saved, monkeypatch, found, error):
    """Another process looks at nothing itself: it might see something else, and end alone."""
    with Checkpoints(saved) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(module, "_from_first", lambda _: found)
        patch.setattr(module.digests, "damage", lambda _: pytest.fail("was hashed"))
        patch.setattr(checkpoints, "steps", lambda: pytest.fail("was listed"))
        patch.setattr(jax, "process_index", lambda: 1)
        with pytest.raises(error, match="see process 0") if error else contextlib.nullcontext():
            checkpoints._insist_on(1)


def test_going_back_replaces_the_damaged_and_the_later(saved):
    """A damaged checkpoint does not count among those kept, nor does one of a timeline given up."""
    (saved / "2" / "state" / "manifest.ocdbt").write_bytes(b"")
    with Checkpoints(saved, keep=2) as checkpoints:
        assert checkpoints.restore(make_state(0)).step == 1
        checkpoints.save(3, make_state(3), {})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3]
        restored = checkpoints.restore(make_state(0), step=1)
        checkpoints.save(2, restored.state, {})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2]


def test_kill_during_saves_leaves_good_checkpoints(tmp_path):
    """kill -9 while a save is under way: what is found is whole and of the step it names."""
    script = textwrap.dedent("""
        import sys, jax.numpy as jnp
        from pathlib import Path
        from fastwhisper_jax.training.checkpoints import Checkpoints
        with Checkpoints(Path(sys.argv[1]), keep=2) as checkpoints:
            for step in range(1, 10_000):
                checkpoints.save(step, {"x": jnp.full((256, 256), step)}, {"cursor": step})
                print(step, flush=True)
    """)
    directory = tmp_path / "c"
    for stop_at in (1, 2, 3, 4):
        with subprocess.Popen(
            [sys.executable, "-c", script, directory], stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout:
                if int(line) >= stop_at:
                    process.send_signal(signal.SIGKILL)
                    break
        with Checkpoints(directory) as checkpoints:
            restored = checkpoints.restore({"x": jnp.zeros((256, 256), jnp.int32)})
        if restored is not None:
            assert set(np.asarray(restored.state["x"]).flat) == {restored.step}
            assert restored.metadata == {"cursor": restored.step}
        assert restored is not None or stop_at == 1


def test_another_state_is_refused_naming_every_leaf(saved):
    state = make_state(0)
    other = state.replace(
        params={"kernel": state.params["kernel"][:8], "half": state.params["kernel"]},
        self_teacher_params={"new": jnp.zeros(2)},
    )
    with Checkpoints(saved) as checkpoints, pytest.raises(InputError) as error:
        checkpoints.restore(other)
    message = str(error.value)
    assert "params/kernel is float32[16,32] there and float32[8,32] here" in message
    assert "params/half is bfloat16[16,32] there and float32[16,32] here" in message
    assert "params/tied is float32[3] there and absent here" in message
    assert "self_params/new is absent there and float32[2] here" in message
    assert "moments" not in message
    assert "\n" not in message


def test_a_directory_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with Checkpoints(tmp_path / "file" / "c") as checkpoints:
        with pytest.raises(InputError, match="cannot write checkpoints"):
            checkpoints.save(1, {"x": jnp.zeros(1)}, {})


def test_saving_and_restoring_print_nothing(tmp_path, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        with Checkpoints(tmp_path / "c") as checkpoints:
            checkpoints.save(1, make_state(1), {})
            checkpoints.restore(jax.eval_shape(lambda: make_state(0)))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
