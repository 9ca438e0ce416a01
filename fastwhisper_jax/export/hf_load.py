"""Hugging Face in: a folder or hub id of a published Whisper becomes dimensions and parameters."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors

from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export import hf_configs as configs
from fastwhisper_jax.models.whisper import hf_names as names
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

# What is fetched from the hub: not the other frameworks' weights, nor a second precision's.
_HUB_FILES = (
    "*.json",
    "README.md",
    "merges.txt",
    "model.safetensors",
    "model-[0-9]*-of-[0-9]*.safetensors",
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
_NAMED_AT_MOST = 3


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A Whisper read from a Hugging Face folder.

    Attributes:
        dims: sizes.
        params: nested dict of NumPy float32 arrays, layers stacked.
        config: config.json.
        generation_config: generation_config.json (suppressed tokens, alignment heads, ...).
        folder: where it was read.
    """

    dims: ModelDimensions
    params: names.Params
    config: configs.Config
    generation_config: configs.Config
    folder: Path


def model_folder(path_or_hub_id: str | Path) -> Path | None:
    """The folder here that is named so, `~` being the home directory; None if there is none."""
    folder = Path(path_or_hub_id).expanduser()
    return folder if folder.is_dir() else None


def resolve_model(path_or_hub_id: str | Path) -> Path:
    """Find the folder of a model, downloading it when a hub id is given.

    Args:
        path_or_hub_id: a folder, or "owner/name" on the Hugging Face hub. A folder wins.

    Returns:
        The folder. Only safetensors, JSON and tokenizer files are ever downloaded.

    Raises:
        InputError: no such folder, and no such hub id or no way to reach it.
    """
    folder = model_folder(path_or_hub_id)
    if folder is not None:
        return folder
    name = str(path_or_hub_id)
    if Path(name).exists() or not _HUB_ID.fullmatch(name):
        raise InputError(
            f"there is no folder {name!r}; give a Hugging Face Whisper folder or a hub id"
        )

    from huggingface_hub import errors, snapshot_download  # late: slow, and a folder needs it not

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (errors.HFValidationError, errors.HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name!r} is neither a folder here nor to be had from the Hugging Face hub ({reason});"
            " check the name and the network, or give a folder"
        ) from error


def load_model(folder: Path) -> LoadedModel:
    """Read a Whisper from a Hugging Face folder, without torch.

    Args:
        folder: holds config.json and safetensors weights in PyTorch's layout (one file, or several
            with an index), in float32, float16 or bfloat16.

    Returns:
        The model, its parameters as float32.

    Raises:
        InputError: something is absent, damaged, or does not fit; all faults of the tensors or
            of a file are in one message.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give a Hugging Face Whisper folder")
    config = configs.read_model_config(folder)
    dims = configs.dimensions_from_config(config, folder / "config.json")
    generation_config = configs.read_generation_config(folder, config, dims)
    files = {file: _open_safetensors(file) for file in _weight_files(folder)}
    holders = {name: handle for handle in files.values() for name in handle.keys()}
    _check_tensors(folder, holders, dims)
    params = names.params_from_tensors(lambda name: holders[name].get_tensor(name), dims)
    return LoadedModel(dims, params, config, generation_config, folder)


def _weight_files(folder: Path) -> list[Path]:
    """Safetensors files of a folder: model.safetensors, or those that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        weight_map = configs.read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise InputError(f"{index} has no weight_map; copy or download it again")
        files = [folder / name for name in sorted(set(weight_map.values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise InputError(
                f"{folder} lacks {_some(absent)} that {index.name} names; download the folder again"
            )
        return files
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickled:
        raise InputError(
            f"{folder} has only {_some(pickled)}, but weights must be safetensors (a pickle can run"
            " code); convert them where torch is installed: WhisperForConditionalGeneration"
            ".from_pretrained(folder).save_pretrained(new_folder)"
        )
    raise InputError(f"{folder} has no model.safetensors; give a folder with a Whisper's weights")


def _open_safetensors(file: Path) -> safetensors.safe_open:
    try:
        return safetensors.safe_open(file, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"{file} is damaged or truncated ({error}); copy or download it again"
        ) from error


def _check_tensors(
    folder: Path, holders: Mapping[str, safetensors.safe_open], dims: ModelDimensions
) -> None:
    """Hold the tensors that the files have against those that config.json asks for."""
    expected = names.tensor_shapes(dims)
    missing = [name for name in expected if name not in holders]
    unexpected = sorted(holders.keys() - expected.keys() - names.TIED_NAMES)
    misshapen, wrong_dtype = [], []
    for name, shape in expected.items():
        if name in holders:
            tensor = holders[name].get_slice(name)
            if tuple(tensor.get_shape()) != shape:
                misshapen.append(f"{name} is {tuple(tensor.get_shape())}, must be {shape}")
            if tensor.get_dtype() not in _FLOAT_DTYPES:
                wrong_dtype.append(f"{name} is {tensor.get_dtype()}")
    faults = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape than config.json says": misshapen,
        "not floating point": wrong_dtype,
    }
    found = [f"{len(which)} {fault} ({_some(which)})" for fault, which in faults.items() if which]
    if found:
        raise InputError(
            f"the tensors of {folder} do not fit its config.json: {'; '.join(found)}."
            " Take weights and config.json from the same model"
        )


def _some(items: list[str]) -> str:
    """The first few items, and how many more there are."""
    more = len(items) - _NAMED_AT_MOST
    return ", ".join(items[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
