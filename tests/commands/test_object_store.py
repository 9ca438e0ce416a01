"""Data, caches, metrics and configs in an object store that knows no append and no rename.

Checkpoints are read and written by Orbax's own drivers, which know no other store than the real
ones: here they lie on the local disk.
"""

import importlib.util
import json
import sys

import numpy as np
import pytest
from etils.epath import backend
from support.object_store import ObjectStore

from fastwhisper_jax import files
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.data.sources import read_source
from fastwhisper_jax.distillation import export_run
from fastwhisper_jax.distillation.array_store import open_store
from fastwhisper_jax.errors import InputError, IntegrityError
from fastwhisper_jax.training import loop
from fastwhisper_jax.training.checkpoints import Checkpoints
from fastwhisper_jax.training.metrics import MetricsLog
from fastwhisper_jax.training.metrics_files import read_lines

BUCKET = files.Path("gs://bucket")


@pytest.fixture
def objects(monkeypatch):
    """The objects of gs://, by name."""
    for scheme in ObjectStore.protocol:
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, scheme, ObjectStore)
    backend.fsspec_backend._get_filesystem.cache_clear()
    ObjectStore.objects.clear()
    ObjectStore.ranges.clear()
    yield ObjectStore.objects
    backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.fixture
def prepared(objects, fastwhisper, tiny_manifest):
    options = ("--out", "gs://bucket/speech", "--shard-seconds", "1.6", "--workers", "1")
    done = fastwhisper("prepare", tiny_manifest, *options)
    assert done.code == 0, done.err
    return "gs://bucket/speech"


def test_prepared_speech_is_read_by_parts(prepared, objects, tiny_manifest):
    names = {name.removeprefix("bucket/speech/") for name in objects}
    shards = {f"shards/0000{n}.{kind}" for n in range(3) for kind in ("flacs", "jsonl")}
    assert names == shards | {"index.jsonl", "dropped.jsonl", "prepared.json", "plan.json"}
    ours, theirs = read_source(prepared), read_source(tiny_manifest)
    assert ObjectStore.ranges == []
    for utterance, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(load_audio(utterance.audio), load_audio(other.audio))
    sizes = {name: len(data) for name, data in objects.items()}
    read = [(name, end - start) for name, start, end in ObjectStore.ranges]
    assert sum(size for _, size in read) == sum(
        size for name, size in sizes.items() if name.endswith(".flacs")
    )


def test_preparing_again_makes_what_is_missing(prepared, objects, fastwhisper, tiny_manifest):
    before = dict(objects)
    del objects["bucket/speech/shards/00001.jsonl"]
    options = ("--out", prepared, "--shard-seconds", "1.6", "--workers", "1")
    done = fastwhisper("prepare", tiny_manifest, *options)
    assert "of which 2 were there already" in done.out and objects == before
    assert fastwhisper("prepare", tiny_manifest, "--out", prepared).code == 2
    assert objects == before


def test_a_manifest_may_lie_beside_its_audio_in_a_store(objects, tiny_manifest):
    for path in tiny_manifest.parent.iterdir():
        objects[f"bucket/raw/{path.name}"] = path.read_bytes()
    ours, theirs = read_source("gs://bucket/raw/speech.jsonl"), read_source(tiny_manifest)
    assert ours[3].audio == "gs://bucket/raw/3.wav"
    np.testing.assert_array_equal(load_audio(ours[3].audio), load_audio(theirs[3].audio))
    del objects["bucket/raw/3.wav"]
    with pytest.raises(InputError, match=r"gs://bucket/raw/3\.wav cannot be read as audio"):
        read_source("gs://bucket/raw/speech.jsonl")
    with pytest.raises(InputError, match="gs://bucket/raw is not a prepared folder"):
        read_source("gs://bucket/raw")
    with pytest.raises(InputError, match=r"manifest gs://bucket/none\.jsonl cannot be read"):
        read_source("gs://bucket/none.jsonl")


def test_a_store_that_is_not_known_or_not_installed_is_an_input_error():
    with pytest.raises(InputError, match="ftp:// is not known"):
        files.path_of("ftp://host/data")
    if importlib.util.find_spec("gcsfs") is None:
        with pytest.raises(InputError, match=r"pip install '\.\[gcs\]' in the folder of this"):
            files.path_of("gs://bucket/data")


def test_a_store_that_does_not_answer_is_an_input_error(objects, monkeypatch):
    def refuse(*_):
        raise PermissionError("401\nAnonymous caller")

    monkeypatch.setattr(ObjectStore, "info", refuse)
    with pytest.raises(InputError, match=r"data gs://bucket/m\.jsonl cannot be reached \(401 Anon"):
        read_source("gs://bucket/m.jsonl")


def logged(run_dir):
    return [json.loads(line)["loss"] for _, line in read_lines(run_dir)]


def test_metrics_are_parts_that_are_written_once(objects):
    with MetricsLog(BUCKET / "run") as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step})
            if step == 2:
                log.flush()
                assert logged(BUCKET / "run") == [1, 2]
    assert [*objects] == ["bucket/run/metrics/00000.jsonl", "bucket/run/metrics/00001.jsonl"]
    with MetricsLog(BUCKET / "run", resumed_step=2) as log:
        assert logged(BUCKET / "run") == [1, 2]
        log.write(3, {"loss": 30})
    assert logged(BUCKET / "run") == [1, 2, 30]
    with MetricsLog(BUCKET / "run"):
        assert logged(BUCKET / "run") == []


def test_metrics_of_a_resumed_run_that_died_at_its_start_are_read_once(objects):
    rows = [
        '{"step": 1}\n{"step": 2}\n',
        '{"step": 3}\n{"step": 4}\n',
        '{"step": 1}\n{"step": 2}\n',
    ]
    for number, part in enumerate(rows):
        objects[f"bucket/run/metrics/0000{number}.jsonl"] = part.encode()
    assert [step for step, _ in read_lines(BUCKET / "run")] == [1, 2]
    objects["bucket/run/metrics/00003.jsonl"] = b"nonsense\n"
    with pytest.raises(IntegrityError, match=r"00003\.jsonl:1 is not an object with a step"):
        read_lines(BUCKET / "run")


def test_arrays_are_kept_in_a_store(objects):
    store = open_store(BUCKET / "cache", "key")
    store.write("a", np.arange(3))
    assert store.absent(["a", "b"]) == [False, True]
    np.testing.assert_array_equal(store.read("a"), np.arange(3))


def test_a_run_is_trained_resumed_plotted_and_exported_there(
    prepared, objects, fastwhisper, tiny_recipe, tmp_path, monkeypatch
):
    class LocalCheckpoints(Checkpoints):
        def __init__(self, directory, *settings, **named):
            super().__init__(tmp_path / str(directory).partition("://")[2], *settings, **named)

    monkeypatch.setattr(loop, "Checkpoints", LocalCheckpoints)
    monkeypatch.setattr(export_run, "Checkpoints", LocalCheckpoints)
    run, out = "gs://bucket/run", tmp_path / "exported"
    command = ("train", tiny_recipe, "--run-dir", run, "--data.train", prepared)
    command += ("--data.cache", "gs://bucket/cache", "--training.steps", 2)
    done = fastwhisper(*command)
    assert done.code == 0, done.err
    assert (
        done.out.splitlines()[-1]
        == f"done; export the student with: fastwhisper export {run} --out DIR"
    )
    written = {
        name.removeprefix("bucket/run/") for name in objects if name.startswith("bucket/run")
    }
    assert written == {"config.json", "metrics/00000.jsonl"}
    assert any(name.startswith("bucket/cache/encoder-") for name in objects)
    assert fastwhisper(*command).code == 0
    assert fastwhisper(*command, "--training.seed", 5).code == 2
    assert fastwhisper("plot", run, "--out", tmp_path / "run.png").code == 0
    done = fastwhisper("export", run, "--out", out)
    assert done.out.startswith(f"exported step 2 of {run} to {out}"), done
    assert fastwhisper("evaluate", out, "--data", prepared, "--limit", 8).code == 0
