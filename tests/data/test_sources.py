import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from fastwhisper_jax.audio.files import EmbeddedAudio, load_audio
from fastwhisper_jax.data.hugging_face import split_name
from fastwhisper_jax.data.sources import read_source, read_usable
from fastwhisper_jax.errors import InputError


def _write(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * 16_000), 0.1, np.float32), 16_000)
    return path


def _manifest(folder, lines):
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def hugging_face(monkeypatch, tmp_path):
    """`datasets`, with its cache in this test's folder and the hub switched off."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def _table(folder, text_column="text", rows=3):
    """Rows of 0.5 s, 1.0 s, 1.5 s, ... of audio, embedded as in data sets on the hub."""
    files = [_write(folder / f"{row}.flac", 0.5 * (row + 1)) for row in range(rows)]
    audio = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    return pyarrow.table(
        {
            "audio": pyarrow.array(audio, kind),
            text_column: [f"text {row}" for row in range(rows)],
            "language": ["en"] * rows,
        }
    )


def _saved(datasets, table, folder):
    """Saves a data set with an Audio column to disk."""
    features = {name: datasets.Value("string") for name in table.column_names if name != "audio"}
    info = datasets.DatasetInfo(features=datasets.Features({"audio": datasets.Audio(), **features}))
    dataset = datasets.Dataset(table, info=info)
    dataset.save_to_disk(str(folder))
    return folder


def _assert_rows(utterances):
    assert [u.text for u in utterances] == ["text 0", "text 1", "text 2"]
    assert [u.duration for u in utterances] == [0.5, 1.0, 1.5]
    assert {u.language for u in utterances} == {"en"}
    assert len({u.id for u in utterances}) == 3
    for row, utterance in enumerate(utterances):
        assert isinstance(utterance.audio, EmbeddedAudio)
        assert load_audio(utterance.audio).shape == (8_000 * (row + 1),)


def test_missing_durations_are_read_from_the_header(tmp_path):
    _write(tmp_path / "a.wav", 0.5)
    lines = [
        {"audio": "a.wav"},
        {"audio": "a.wav", "offset": 0.2},
        {"audio": "a.wav", "duration": 0.1},
    ]
    durations = [u.duration for u in read_source(_manifest(tmp_path, lines))]
    np.testing.assert_allclose(durations, [0.5, 0.3, 0.1])


def test_all_audio_that_cannot_be_read_is_reported_at_once(tmp_path):
    (tmp_path / "text.wav").write_text("no audio\n" * 10)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16_000)
    _write(tmp_path / "fine.wav")
    names = ["fine", "text", "empty", "none0", "none1", "none2"]
    lines = [{"audio": f"{name}.wav", "duration": 0.5} for name in names]
    with pytest.raises(InputError) as caught:
        read_source(_manifest(tmp_path, lines))
    message = str(caught.value)
    assert message.startswith("5 errors in ")
    assert "text.wav cannot be read as audio" in message
    assert "empty.wav is empty" in message
    assert "no audio file" in message and "none0.wav" in message
    assert message.endswith("; and 2 more")
    assert "fine.wav" not in message and "\n" not in message


@pytest.mark.parametrize(
    "part", [{"offset": 0.5}, {"offset": 0.3, "duration": 0.3}, {"duration": 1}]
)
def test_a_part_outside_its_file_is_an_input_error(tmp_path, part):
    _write(tmp_path / "a.wav", 0.5)
    with pytest.raises(InputError, match="it must be within its audio"):
        read_source(_manifest(tmp_path, [{"audio": "a.wav", **part}]))


@pytest.mark.parametrize("name", ["none.jsonl", "none/at/all", "none.parquet", "./none"])
def test_a_source_that_is_not_there_is_an_input_error(name):
    with pytest.raises(InputError, match=r"none.*(cannot be read|must be a manifest)"):
        read_source(name)


def test_a_hub_id_that_cannot_be_loaded_is_an_input_error(hugging_face):
    with pytest.raises(InputError, match="owner/none is not a local path") as caught:
        read_source("owner/none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text_column", ["text", "sentence", "transcription"])
@pytest.mark.parametrize("says_audio", [True, False])
def test_a_parquet_file_is_read_without_decoding(hugging_face, tmp_path, text_column, says_audio):
    path = tmp_path / "set.parquet"
    table = _table(tmp_path, text_column)
    if says_audio:  # files on the hub name the Audio feature in their schema
        features = {name: {"dtype": "string", "_type": "Value"} for name in table.column_names}
        features["audio"] = {"_type": "Audio"}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pyarrow.parquet.write_table(table, path)
    _assert_rows(read_source(path))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("data/train-00000-of-00001", "data/test-00000-of-00001"),
        ("train/0000", "test/0000"),
        ("en/train-0", "en/test-0"),
        ("train/0", "latest-0"),
    ],
)
def test_one_split_of_a_folder_of_parquet_files_is_read(hugging_face, tmp_path, train, test):
    folder = tmp_path / "train" / "set"  # the name of a folder above does not count
    table = _table(tmp_path)
    for name, rows in ((train, table), (test, table.slice(0, 1))):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(rows, path)
    _assert_rows(read_source(folder, "train"))
    with pytest.raises(InputError, match="has the splits .*train.*, and split is 'dev'"):
        read_source(folder, "dev")
    with pytest.raises(InputError, match="fastwhisper prepare .*/set --split train --out DIR"):
        read_source(folder)


def test_parquet_files_without_split_names_are_one_split(hugging_face, tmp_path):
    table = _table(tmp_path)
    for row in range(3):
        pyarrow.parquet.write_table(table.slice(row, 1), tmp_path / f"latest-{row}.parquet")
    _assert_rows(read_source(tmp_path))
    with pytest.raises(InputError, match="holds files of no split, and split is 'test'"):
        read_source(tmp_path, "test")


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("train.parquet", "train"),
        ("train_1.parquet", "train"),
        ("Train/0000.parquet", "train"),
        ("default/partial-train/0000.parquet", "train"),
        ("en/validation-00000-of-00001.parquet", "validation"),
        ("test/part-00000-of-00002.parquet", "test"),
        ("train.clean.100-00000-of-00014.parquet", "train.clean.100"),
        ("data/other-00000-of-00001.parquet", "other"),
        ("0.parquet", None),
        ("part-0.parquet", None),
        ("data/latest-0.parquet", None),
    ],
)
def test_the_name_or_folder_of_a_parquet_file_tells_its_split(file, split):
    assert split_name(Path(file)) == split


def test_a_data_set_saved_to_disk_is_read_without_decoding(hugging_face, tmp_path):
    _assert_rows(read_source(_saved(hugging_face, _table(tmp_path), tmp_path / "saved")))


def test_a_saved_data_set_of_several_splits_needs_one_of_them(hugging_face, tmp_path):
    table = _table(tmp_path)
    for split in ("train", "test"):
        _saved(hugging_face, table, tmp_path / "saved" / split)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    _assert_rows(read_source(tmp_path / "saved", "test"))
    with pytest.raises(InputError, match="has the splits train, test, and split is 'dev'"):
        read_source(tmp_path / "saved", "dev")
    with pytest.raises(InputError, match="fastwhisper prepare .*saved --split train --out DIR"):
        read_source(tmp_path / "saved")


def test_a_data_set_that_names_files_reads_them(hugging_face, tmp_path):
    files = [str(_write(tmp_path / f"{row}.flac")) for row in range(2)]
    path = tmp_path / "set.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"audio": files, "id": [7, 8]}), path)
    utterances = read_source(path)
    assert [u.id for u in utterances] == ["7", "8"]
    assert [u.text for u in utterances] == [None, None]
    assert load_audio(utterances[1].audio).shape == (8_000,)


def test_a_path_without_a_data_set_is_an_input_error(hugging_face, tmp_path):
    with pytest.raises(InputError, match="holds no data set"):
        read_source(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="cannot be read as a data set") as caught:
        read_source(tmp_path / "broken.parquet")
    assert "\n" not in str(caught.value)
    pyarrow.parquet.write_table(pyarrow.table({"sound": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="it must have one named audio"):
        read_source(tmp_path / "other.parquet")


def test_a_column_of_a_wrong_type_is_an_input_error(hugging_face, tmp_path):
    table = _table(tmp_path).drop_columns(["text"]).append_column("text", [[1, 2, 3]])
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(InputError, match="column text holds int64; it must be text"):
        read_source(tmp_path / "set.parquet")


@pytest.mark.parametrize("kind", [pyarrow.float64(), pyarrow.float32(), pyarrow.int32()], ids=str)
def test_an_invalid_duration_is_found_before_the_run(hugging_face, tmp_path, kind):
    bad = [0, -1] if kind == pyarrow.int32() else [float("nan"), float("inf"), 0, -1]
    table = _table(tmp_path, rows=len(bad) + 2)
    durations = pyarrow.array([1, None, *bad], kind)
    pyarrow.parquet.write_table(
        table.append_column("duration", durations), tmp_path / "set.parquet"
    )
    usable, faults = read_usable(tmp_path / "set.parquet")
    assert [u.duration for u in usable] == [1.0, 1.0]
    assert len(faults) == len(bad)
    assert all("must be a number of seconds, more than 0" in fault.reason for fault in faults)
    assert 'set.parquet row 2: "duration" is ' in faults[0].reason
    with pytest.raises(InputError, match=f"{len(bad)} errors in"):
        read_source(tmp_path / "set.parquet")


def test_text_that_is_not_utf_8_is_an_input_error(hugging_face, tmp_path):
    half = b"\xed\xa0\xbd"  # some programs write half of a surrogate pair like this
    ends = pyarrow.py_buffer(np.array([0, len(half)], np.int32).tobytes())
    text = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, ends, pyarrow.py_buffer(half)])
    table = _table(tmp_path, rows=1).drop_columns(["text"]).append_column("text", text)
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(InputError, match="column text holds text that is not UTF-8"):
        read_source(tmp_path / "set.parquet")


@pytest.mark.real
def test_real_manifests_are_complete(real_data):
    utterances = read_source(real_data / "asterisk-en" / "test.jsonl")
    assert len(utterances) == 99
    assert sum(u.duration or 0.0 for u in utterances) == pytest.approx(218, abs=1)
