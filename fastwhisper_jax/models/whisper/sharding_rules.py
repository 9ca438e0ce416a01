"""Where Whisper's parameters lie on a mesh with the axes `data`, `fsdp` and `tensor`.

The vocabulary's size is odd for every published Whisper but one, so the embedding is divided over
its width.
"""

from jax.sharding import PartitionSpec as P

# Of the embedding, from the axis that divides it first: the neighbours along `fsdp` then hold
# neighbouring columns, and those along `tensor` whole stretches of them.
WIDTH_AXES = ("tensor", "fsdp")

RULES: tuple[tuple[str, P], ...] = (
    (r"layers/.*/(query|key|value|fc1)/kernel$", P(None, "fsdp", "tensor")),
    (r"layers/.*/(query|value|fc1)/bias$", P(None, "tensor")),
    (r"layers/.*/(out|fc2)/kernel$", P(None, "tensor", "fsdp")),
    (r"layers/.*/(scale|bias)$", P()),
    (r"conv[12]/kernel$", P(None, None, WIDTH_AXES)),
    (r"embed_tokens$", P(None, WIDTH_AXES)),
    (r"positions$", P(None, WIDTH_AXES)),
    (r"(scale|bias)$", P()),
    (r"(step|count)$", P()),
)
