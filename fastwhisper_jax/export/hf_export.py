"""Writes a student as a Hugging Face folder, which transformers, FlaxWhisper and others read."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from fastwhisper_jax.audio.constants import FULL_CONTEXT_SECONDS
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_configs import (
    read_generation_config,
    read_model_config,
    read_preprocessor_config,
)
from fastwhisper_jax.export.model_card import CardFacts, model_card
from fastwhisper_jax.export.precision import rounded
from fastwhisper_jax.export.student_configs import (
    student_alignment_heads,
    student_config,
    student_generation_config,
    student_preprocessor_config,
)
from fastwhisper_jax.export.tokenizer_files import TOKENIZER_FILES, tokenizer_files
from fastwhisper_jax.models.whisper import hf_names
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

# Exports have this name in the header of model.safetensors. A folder without it is never replaced.
_PRODUCER = "fastwhisper_jax"
_EXPORT_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "flax_model.msgpack",
        "preprocessor_config.json",
        "README.md",
        *TOKENIZER_FILES,
    }
)


def check_target(target: Path) -> None:
    """Checks that an export may be written to a folder, before time is spent on the export.

    Raises:
        InputError: the folder holds anything but an earlier export, or cannot be written.
    """
    target = Path(os.path.abspath(target))
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} is a file or a link; choose a folder to export to")
    if target.is_dir() and any(target.iterdir()):
        others = sorted(p.name for p in target.iterdir() if p.name not in _EXPORT_FILES)
        if others or not _is_export(target):
            content = others[0] if others else "a model of another origin"
            raise InputError(
                f"{target} holds {content}, which an export would delete; choose a new folder or"
                " empty it"
            )
    with _temporary_sibling(target):
        pass


def export_student(
    target: Path,
    dims: ModelDimensions,
    params: hf_names.Params,
    base_folder: Path,
    facts: CardFacts,
    dtype: str = "float32",
) -> tuple[str, ...]:
    """Writes a student as Hugging Face weights, for PyTorch and for FlaxWhisper.

    Writes a temporary folder beside the target and renames it when it is complete. This replaces an
    earlier export at the target.

    Args:
        target: folder to write. Its name becomes the name of the model.
        dims: the student's sizes.
        params: the student's parameters, float32, layers stacked.
        base_folder: Hugging Face folder of the model whose layers the student was initialised
            from, usually the teacher. The tokenizer and the configs come from it.
        facts: what the model card says. It also names the decoder layers that were kept.
        dtype: dtype of the weights in both files, one of `precision.DTYPES`.

    Returns:
        Notes for the user, one line each: what other programs cannot do with this export.

    Raises:
        InputError: the target cannot be written or holds anything but an earlier export, the base
            folder lacks a file, or a parameter is too large for the dtype.
    """
    target = Path(os.path.abspath(target))
    check_target(target)
    base_config, base_dims = read_model_config(base_folder)
    base_generation = read_generation_config(base_folder, base_config, base_dims)
    heads, heads_note = student_alignment_heads(base_generation, facts.decoder_layers, dims)
    card = model_card(target.name, facts, dims, base_dims, dtype, heads_note)
    json_files = {
        "config.json": student_config(base_config, dims, facts.windows, dtype),
        "generation_config.json": student_generation_config(
            base_generation, heads, facts.trained_with_timestamps
        ),
        "preprocessor_config.json": student_preprocessor_config(
            read_preprocessor_config(base_folder), dims
        ),
    }
    other_files = tokenizer_files(base_folder) | {"README.md": card.encode()}
    for name, config in json_files.items():
        other_files[name] = (json.dumps(config, indent=2) + "\n").encode()
    _check_params(params, dims, facts)
    weights, rounding_notes = rounded(params, dtype)
    with _temporary_sibling(target) as folder:
        for name, content in other_files.items():
            (folder / name).write_bytes(content)
        _write_weights(folder, weights, dims)
        _replace(target, folder)
    return (*_context_notes(dims), *filter(None, [heads_note]), *rounding_notes)


def _check_params(params: hf_names.Params, dims: ModelDimensions, facts: CardFacts) -> None:
    """Asserts that the parts of a student belong together. A failure is a bug, not a user error."""
    leaves = traverse_util.flatten_dict(params, sep="/")
    shapes = {path: np.shape(leaf) for path, leaf in leaves.items()}
    assert shapes == hf_names.param_shapes(dims), "params and dims differ"
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(np.float32)}, "not float32"
    assert len(facts.encoder_layers) == dims.n_audio_layer, "facts name other encoder layers"
    assert len(facts.decoder_layers) == dims.n_text_layer, "facts name other decoder layers"


def _write_weights(folder: Path, params: hf_names.Params, dims: ModelDimensions) -> None:
    # The Flax loader of transformers refuses a folder without format=pt.
    metadata = {"format": "pt", "producer": _PRODUCER}
    tensors = dict(hf_names.tensors_from_params(params, dims))
    save_file(tensors, folder / "model.safetensors", metadata)
    (folder / "model.safetensors").chmod(0o644)  # save_file makes it private
    flax_tree = hf_names.flax_tree_from_params(params, dims)
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(flax_tree))


def _context_notes(dims: ModelDimensions) -> tuple[str, ...]:
    if dims.context_seconds >= FULL_CONTEXT_SECONDS:
        return ()
    return (
        f"the context is {dims.context_seconds:g} s: faster-whisper and whisper.cpp need windows of"
        " 30 s and cannot run this model",
    )


def _is_export(folder: Path) -> bool:
    """Whether this project wrote a folder, by the header of its weights."""
    try:
        with safetensors.safe_open(folder / "model.safetensors", framework="np") as file:
            return (file.metadata() or {}).get("producer") == _PRODUCER
    except (safetensors.SafetensorError, OSError):
        return False


@contextlib.contextmanager
def _temporary_sibling(target: Path) -> Iterator[Path]:
    """Makes a folder beside the target, on the same file system, and removes it at the end."""
    folder = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        folder.chmod(0o755)  # mkdtemp makes it private
        yield folder
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _replace(target: Path, folder: Path) -> None:
    """Renames a complete folder to the target, and deletes an earlier export there.

    The earlier export is moved aside first and moved back after any error. So the target is always
    one of the two, even after an interrupt.
    """
    if not target.exists():
        folder.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    earlier = aside / target.name
    try:
        target.rename(earlier)
        folder.rename(target)
    except BaseException:
        if not target.exists():
            earlier.rename(target)
        shutil.rmtree(aside)
        raise
    shutil.rmtree(aside)
