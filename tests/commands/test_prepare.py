"""Prepared shards hold the same audio and text as their sources, and are checked when read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from fastwhisper_jax.audio.files import EmbeddedAudio, load_audio
from fastwhisper_jax.data.prepare import flac_bytes
from fastwhisper_jax.data.sources import read_source
from fastwhisper_jax.errors import InputError, IntegrityError


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def manifest(tiny_manifest, tmp_path):
    """A copy that a test may change. Its eight utterances last 0.5 s to 0.7 s."""
    shutil.copytree(tiny_manifest.parent, tmp_path / "speech")
    return tmp_path / "speech" / tiny_manifest.name


@pytest.fixture
def prepare(fastwhisper, manifest, tmp_path):
    """Prepares the manifest in shards of three utterances."""

    def prepare(*options, sources=None, out=tmp_path / "out", workers=1):
        given = ("--out", out, "--shard-seconds", "1.6", "--workers", workers)
        return fastwhisper("prepare", *(sources or [manifest]), *given, *options)

    return prepare


@pytest.fixture
def out(prepare, tmp_path):
    done = prepare()
    assert done.code == 0, done.err
    assert done.out == (
        f"{tmp_path / 'out'}: 8 utterances in 3 shards, of which 0 were there already\n"
    )
    return tmp_path / "out"


def test_prepared_utterances_are_those_of_the_manifest_bit_for_bit(out, manifest):
    ours, theirs = read_source(out), read_source(manifest)
    for utterance, other in zip(ours, theirs, strict=True):
        for name in ("id", "text", "language", "offset", "duration"):
            assert getattr(utterance, name) == getattr(other, name)
        assert isinstance(utterance.audio, EmbeddedAudio)
        np.testing.assert_array_equal(load_audio(utterance.audio), load_audio(other.audio))


def test_reading_the_index_opens_no_audio(out):
    for shard in (out / "shards").iterdir():
        shard.unlink()
    assert [u.text for u in read_source(out)][:2] == ["zero", "one two"]


def test_every_16_bit_value_comes_back(tmp_path):
    values = np.arange(-(2**15), 2**15, dtype=np.float32) / 2**15
    (tmp_path / "a.flac").write_bytes(flac_bytes(values))
    np.testing.assert_array_equal(load_audio(str(tmp_path / "a.flac")), values)
    (tmp_path / "b.flac").write_bytes(flac_bytes(np.float32([1.5, -1.5])))
    np.testing.assert_array_equal(load_audio(str(tmp_path / "b.flac")), [1 - 2**-15, -1.0])


def test_a_second_call_makes_the_missing_shards_only_and_the_same_bytes(out, prepare):
    before = contents(out)
    made = (out / "shards" / "00000.flacs").stat().st_mtime_ns
    (out / "shards" / "00001.flacs").unlink()
    (out / "shards" / "00002.jsonl").unlink()
    (out / "prepared.json").unlink()
    with pytest.raises(InputError, match="is not complete; run its fastwhisper prepare command"):
        read_source(out)
    done = prepare()
    assert (done.code, "of which 1 were there already" in done.out) == (0, True)
    assert contents(out) == before
    assert (out / "shards" / "00000.flacs").stat().st_mtime_ns == made


def test_several_processes_make_the_same_shards(out, prepare, tmp_path):
    assert prepare(out=tmp_path / "other", workers=2).code == 0
    assert contents(tmp_path / "other") == contents(out)


# One of three workers is busy and two are idle. A spawned worker runs this file as well.
ONE_SHARD_IS_SLOW = """
import pathlib, sys, time
from fastwhisper_jax.cli import main
from fastwhisper_jax.data import prepare

def write_shard(out, number, shard):
    pathlib.Path(out, f"begun-{number}").touch()
    time.sleep(60 if number == 0 else 0)

prepare.write_shard = write_shard
if __name__ == "__main__":
    sys.exit(main())
"""


def test_ctrl_c_ends_all_workers_at_once_without_a_traceback(manifest, tmp_path):
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(ONE_SHARD_IS_SLOW)
    options = ("--out", out, "--shard-seconds", "1.6", "--workers", "3")
    command = [sys.executable, script, "prepare", manifest, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while len(list(out.glob("begun-*"))) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 75 and "Traceback" not in errors, errors
    assert errors.splitlines()[-1].startswith("interrupted: ")


@pytest.mark.parametrize("change", ["text", "audio", "option"])
def test_another_manifest_or_option_is_refused(out, prepare, manifest, change):
    before = contents(out)
    options = ()
    if change == "text":
        manifest.write_text(manifest.read_text().replace("zero", "none"))
    elif change == "audio":
        soundfile.write(manifest.with_name("3.wav"), np.zeros(9_200), 16_000, "PCM_24")
    else:
        options = ("--max-seconds", "20")
    done = prepare(*options)
    assert done.code == 2 and f"error: {out} holds shards of something else" in done.err
    assert contents(out) == before


def test_long_and_unreadable_utterances_are_left_out_named_and_counted(prepare, manifest, tmp_path):
    manifest.with_name("1.wav").write_text("no audio")
    broken = manifest.with_name("4.wav")  # its header is whole, its samples are not finite
    soundfile.write(broken, np.full(9_600, np.nan), 16_000, "FLOAT")
    done = prepare("--max-seconds", "0.65")
    assert done.code == 1 and "5 utterances in " in done.out
    assert "left out: 1 longer than 0.65 s, 2 that cannot be read" in done.out
    assert "u1: " in done.out and "u4: " in done.out
    lines = (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {"u1", "u4", "u7"}
    assert [u.id for u in read_source(tmp_path / "out")] == ["u0", "u2", "u3", "u5", "u6"]
    assert prepare("--max-seconds", "0.65").code == 1


def test_data_without_a_usable_utterance_is_refused_and_nothing_is_written(prepare, tmp_path):
    done = prepare("--max-seconds", "0.1")
    assert done.code == 2 and "8 are longer than 0.1 s" in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_refused_and_kept(prepare, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert prepare().code == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("position", [0, 2_000, -1])
def test_a_flipped_bit_is_found_when_its_utterance_is_read(out, position):
    path = out / "shards" / "00001.flacs"
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)
    damaged = []
    for utterance in read_source(out):
        try:
            load_audio(utterance.audio)
        except IntegrityError as error:
            damaged.append(str(error))
    (line,) = damaged
    assert line.startswith(f"{path} is damaged between the bytes ")


def test_a_changed_index_is_found(out):
    index = out / "index.jsonl"
    index.write_text(index.read_text().replace("zero", "none"))
    with pytest.raises(IntegrityError, match=r"index\.jsonl has changed since it was written"):
        read_source(out)


def test_several_sources_become_one_folder_and_a_prepared_folder_is_a_source(
    out, prepare, tmp_path
):
    done = prepare(sources=[out, out], out=tmp_path / "twice")
    assert done.code == 0, done.err
    assert [u.id for u in read_source(tmp_path / "twice")] == 2 * [f"u{i}" for i in range(8)]


@pytest.mark.parametrize("option", ["--workers", "--shard-seconds", "--max-seconds"])
def test_options_must_be_above_0(prepare, option):
    done = prepare(option, "0")
    assert done.code == 2 and f"error: {option} 0" in done.err
