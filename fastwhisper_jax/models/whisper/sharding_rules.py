"""How Whisper's parameters are sharded on a mesh with the axes `data`, `fsdp` and `tensor`.

The embedding is sharded over its width, because a vocabulary such as 51865 does not divide evenly
over devices.
"""

from jax.sharding import PartitionSpec as P

# The axes that shard the width of the embedding, outermost first. Devices next to each other along
# `fsdp` then hold adjacent columns, and each index along `tensor` holds one contiguous range.
WIDTH_AXES = ("tensor", "fsdp")

RULES: tuple[tuple[str, P], ...] = (
    (r"layers/.*/(query|key|value|fc1)/kernel$", P(None, "fsdp", "tensor")),
    (r"layers/.*/(query|value|fc1)/bias$", P(None, "tensor")),
    (r"layers/.*/(out|fc2)/kernel$", P(None, "tensor", "fsdp")),
    (r"layers/.*/(scale|bias)$", P()),
    (r"conv[12]/kernel$", P(None, None, WIDTH_AXES)),
    (r"embed_tokens$", P(None, WIDTH_AXES)),
    (r"hidden_maps/.*kernel$", P(None, "fsdp")),
    (r"positions$", P(None, WIDTH_AXES)),
    (r"(scale|bias)$", P()),
    (r"(step|count)$", P()),
)
