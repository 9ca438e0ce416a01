"""One two-way table between our parameter tree and Hugging Face's names for Whisper's weights."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

Params = dict[str, Any]

# (our path, Hugging Face's PyTorch name, our shape in dimension letters). "{layer}" in a name means
# that they have one tensor for each layer, and we have one array with a leading layer axis.
_IN_BOTH_STACKS = (
    ("layers/attn_norm/scale", "layers.{layer}.self_attn_layer_norm.weight", "D"),
    ("layers/attn_norm/bias", "layers.{layer}.self_attn_layer_norm.bias", "D"),
    ("layers/attn/query/kernel", "layers.{layer}.self_attn.q_proj.weight", "D D"),
    ("layers/attn/query/bias", "layers.{layer}.self_attn.q_proj.bias", "D"),
    ("layers/attn/key/kernel", "layers.{layer}.self_attn.k_proj.weight", "D D"),
    ("layers/attn/value/kernel", "layers.{layer}.self_attn.v_proj.weight", "D D"),
    ("layers/attn/value/bias", "layers.{layer}.self_attn.v_proj.bias", "D"),
    ("layers/attn/out/kernel", "layers.{layer}.self_attn.out_proj.weight", "D D"),
    ("layers/attn/out/bias", "layers.{layer}.self_attn.out_proj.bias", "D"),
    ("layers/mlp_norm/scale", "layers.{layer}.final_layer_norm.weight", "D"),
    ("layers/mlp_norm/bias", "layers.{layer}.final_layer_norm.bias", "D"),
    ("layers/mlp/fc1/kernel", "layers.{layer}.fc1.weight", "D F"),
    ("layers/mlp/fc1/bias", "layers.{layer}.fc1.bias", "F"),
    ("layers/mlp/fc2/kernel", "layers.{layer}.fc2.weight", "F D"),
    ("layers/mlp/fc2/bias", "layers.{layer}.fc2.bias", "D"),
    ("norm/scale", "layer_norm.weight", "D"),
    ("norm/bias", "layer_norm.bias", "D"),
)
_IN_ENCODER = (
    ("conv1/kernel", "conv1.weight", "3 M D"),
    ("conv1/bias", "conv1.bias", "D"),
    ("conv2/kernel", "conv2.weight", "3 D D"),
    ("conv2/bias", "conv2.bias", "D"),
    ("positions", "embed_positions.weight", "S D"),
    *_IN_BOTH_STACKS,
)
_IN_DECODER = (
    ("embed_tokens", "embed_tokens.weight", "V D"),
    ("positions", "embed_positions.weight", "T D"),
    ("layers/cross_attn_norm/scale", "layers.{layer}.encoder_attn_layer_norm.weight", "D"),
    ("layers/cross_attn_norm/bias", "layers.{layer}.encoder_attn_layer_norm.bias", "D"),
    ("layers/cross_attn/query/kernel", "layers.{layer}.encoder_attn.q_proj.weight", "D D"),
    ("layers/cross_attn/query/bias", "layers.{layer}.encoder_attn.q_proj.bias", "D"),
    ("layers/cross_attn/key/kernel", "layers.{layer}.encoder_attn.k_proj.weight", "D D"),
    ("layers/cross_attn/value/kernel", "layers.{layer}.encoder_attn.v_proj.weight", "D D"),
    ("layers/cross_attn/value/bias", "layers.{layer}.encoder_attn.v_proj.bias", "D"),
    ("layers/cross_attn/out/kernel", "layers.{layer}.encoder_attn.out_proj.weight", "D D"),
    ("layers/cross_attn/out/bias", "layers.{layer}.encoder_attn.out_proj.bias", "D"),
    *_IN_BOTH_STACKS,
)
# The output projection is the token embedding. A file may contain it a second time, by this name.
TIED_NAMES = frozenset({"proj_out.weight"})


class Row(NamedTuple):
    """One row of the table: a parameter, or one parameter of every layer of a stack."""

    ours: str
    theirs: str
    letters: str

    @property
    def is_stacked(self) -> bool:
        return "{layer}" in self.theirs

    @property
    def is_transposed(self) -> bool:
        """PyTorch's kernels have our axes in reverse order; other tensors are the same."""
        return self.ours.endswith("/kernel")


TABLE = tuple(
    Row(f"{stack}/{ours}", f"model.{stack}.{theirs}", letters)
    for stack, rows in (("encoder", _IN_ENCODER), ("decoder", _IN_DECODER))
    for ours, theirs, letters in rows
)


def layer_count(row: Row, dims: ModelDimensions) -> int:
    """Returns the number of layers of the stack that a row belongs to."""
    return dims.n_audio_layer if row.ours.startswith("encoder/") else dims.n_text_layer


def layer_shape(row: Row, dims: ModelDimensions) -> tuple[int, ...]:
    """Returns the shape of a row's parameter in our layout, without the layer axis."""
    sizes = {
        "3": 3,
        "D": dims.n_state,
        "F": dims.n_audio_mlp if row.ours.startswith("encoder/") else dims.n_text_mlp,
        "M": dims.n_mels,
        "S": dims.n_audio_ctx,
        "T": dims.n_text_ctx,
        "V": dims.n_vocab,
    }
    return tuple(sizes[letter] for letter in row.letters.split())


def param_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Returns our paths ("encoder/conv1/kernel") and their shapes, with the layer axis."""
    return {
        row.ours: (layer_count(row, dims),) * row.is_stacked + layer_shape(row, dims)
        for row in TABLE
    }


def parameter_count(dims: ModelDimensions) -> int:
    """Returns the number of parameters. The tied output projection counts once."""
    return sum(math.prod(shape) for shape in param_shapes(dims).values())


def tensor_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Returns Hugging Face's PyTorch names and the shapes of their tensors."""
    shapes = {}
    for row in TABLE:
        shape = layer_shape(row, dims)
        for name in _tensor_names(row, dims):
            shapes[name] = shape[::-1] if row.is_transposed else shape
    return shapes


def params_from_tensors(read: Callable[[str], np.ndarray], dims: ModelDimensions) -> Params:
    """Builds our parameter tree from Hugging Face's tensors, as float32.

    Args:
        read: returns the tensor of a PyTorch name. It is called once for each name, so that beside
            the result only one tensor is in memory at a time.
        dims: sizes of the model, which the tensors must have.

    Returns:
        Nested dict of NumPy float32 arrays.
    """
    flat = {}
    for row, shape in zip(TABLE, param_shapes(dims).values(), strict=True):
        array = np.empty(shape, np.float32)
        for layer, name in enumerate(_tensor_names(row, dims)):
            tensor = read(name)
            array[layer if row.is_stacked else ...] = tensor.T if row.is_transposed else tensor
        flat[row.ours] = array
    return traverse_util.unflatten_dict(flat, sep="/")


def tensors_from_params(params: Params, dims: ModelDimensions) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, tensor) in Hugging Face's PyTorch layout; undoes `params_from_tensors`."""
    flat = traverse_util.flatten_dict(params, sep="/")
    for row in TABLE:
        array = np.asarray(flat[row.ours])
        for layer, name in enumerate(_tensor_names(row, dims)):
            tensor = array[layer] if row.is_stacked else array
            yield name, np.ascontiguousarray(tensor.T if row.is_transposed else tensor)


def flax_tree_from_params(params: Params, dims: ModelDimensions) -> Params:
    """Returns our parameters as the tree of transformers' FlaxWhisper.

    FlaxWhisper uses the PyTorch names, but names each leaf by its kind (kernel, bias, scale,
    embedding). Each layer is a subtree under the key "0", "1", .... Its arrays have our layout.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    tree = {}
    for row in TABLE:
        array = np.asarray(flat[row.ours])
        leaf = row.ours.rsplit("/", 1)[1]
        leaf = leaf if leaf in ("kernel", "bias", "scale") else "embedding"
        for layer, name in enumerate(_tensor_names(row, dims)):
            module = tuple(name.split(".")[:-1])
            tree[(*module, leaf)] = array[layer] if row.is_stacked else array
    return traverse_util.unflatten_dict(tree)


def _tensor_names(row: Row, dims: ModelDimensions) -> list[str]:
    layers = range(layer_count(row, dims)) if row.is_stacked else range(1)
    return [row.theirs.format(layer=layer) for layer in layers]
