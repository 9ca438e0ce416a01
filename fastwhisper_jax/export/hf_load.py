"""Loads a published Whisper from a Hugging Face folder or hub id."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export import hf_configs
from fastwhisper_jax.export.hf_configs import HFConfig
from fastwhisper_jax.models.whisper import hf_names
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

# Files to download from the hub: no weights of other frameworks or of a second precision.
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
    """A Whisper loaded from a Hugging Face folder.

    Attributes:
        dims: sizes.
        params: nested dict of NumPy float32 arrays; layers are stacked on the first axis.
        config: content of config.json.
        generation_config: content of generation_config.json (suppressed tokens, alignment heads).
        windows: the lengths of audio that it hears: those that an export of ours names, else one.
        folder: the folder.
    """

    dims: ModelDimensions
    params: hf_names.Params
    config: HFConfig
    generation_config: HFConfig
    windows: Windows
    folder: Path


def model_folder(path_or_hub_id: str | Path) -> Path | None:
    """Returns the local folder of that name; None if there is none. `~` is the home directory."""
    folder = Path(path_or_hub_id).expanduser()
    return folder if folder.is_dir() else None


def resolve_model(path_or_hub_id: str | Path) -> Path:
    """Finds the folder of a model, or downloads the model from the hub.

    Args:
        path_or_hub_id: a folder, or "owner/name" on the Hugging Face hub. A folder takes
            precedence.

    Returns:
        The folder. Only safetensors, JSON and tokenizer files are downloaded.

    Raises:
        InputError: there is no such folder, and the hub has no such id or cannot be reached.
    """
    folder = model_folder(path_or_hub_id)
    if folder is not None:
        return folder
    name = str(path_or_hub_id)
    if Path(name).exists() or not _HUB_ID.fullmatch(name):
        raise InputError(
            f"there is no folder {name!r}; give a Hugging Face Whisper folder or a hub id"
        )

    from huggingface_hub import errors, snapshot_download  # slow, and not needed for a folder

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (errors.HFValidationError, errors.HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name!r} is not a folder here and cannot be downloaded from the Hugging Face hub"
            f" ({reason}); check the name and the network, or give a folder"
        ) from error


def load_model(folder: Path) -> LoadedModel:
    """Loads a Whisper from a Hugging Face folder, without torch.

    Args:
        folder: holds config.json and safetensors weights in PyTorch's layout (one file, or several
            with an index), of any floating-point dtype.

    Returns:
        The model. Its parameters are float32.

    Raises:
        InputError: a file is missing or damaged, or does not fit the others. The message lists all
            faults of the file, or of the tensors.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give a Hugging Face Whisper folder")
    config, dims = hf_configs.read_model_config(folder)
    generation_config = hf_configs.read_generation_config(folder, config, dims)
    files = {file: _open_safetensors(file) for file in _weight_files(folder)}
    holders = {name: handle for handle in files.values() for name in handle.keys()}
    _check_tensors(folder, holders, dims)
    params = hf_names.params_from_tensors(lambda name: holders[name].get_tensor(name), dims)
    windows = hf_configs.read_windows(folder, config, dims)
    return LoadedModel(dims, params, config, generation_config, windows, folder)


def _weight_files(folder: Path) -> list[Path]:
    """Returns model.safetensors, or the safetensors files that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        weight_map = hf_configs.read_json(index).get("weight_map")
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
    """Checks names, shapes and dtypes of the tensors against config.json."""
    expected = hf_names.tensor_shapes(dims)
    missing = [name for name in expected if name not in holders]
    unexpected = sorted(holders.keys() - expected.keys() - hf_names.TIED_NAMES)
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
    counted = [f"{len(which)} {fault} ({_some(which)})" for fault, which in faults.items() if which]
    if counted:
        raise InputError(
            f"the tensors of {folder} do not fit its config.json: {'; '.join(counted)}."
            " Take weights and config.json from the same model"
        )


def _some(items: list[str]) -> str:
    """The first few items, and how many more there are."""
    more = len(items) - _NAMED_AT_MOST
    return ", ".join(items[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
