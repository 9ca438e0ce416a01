"""Runs in an environment with transformers 4.57 and Flax.

Does with FlaxWhisper, which reads flax_model.msgpack, what `peer_torch.py` does with PyTorch.
"""

import json
import sys
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from transformers import FlaxWhisperForConditionalGeneration, WhisperTokenizer  # type: ignore[attr-defined]


def compute(folder, inputs_path, outputs_path):
    inputs = np.load(inputs_path)
    model, params = FlaxWhisperForConditionalGeneration.from_pretrained(folder, _do_init=False)
    outputs = model(
        input_features=inputs["log_mel"], decoder_input_ids=inputs["tokens"], params=params
    )
    np.savez(outputs_path, encoder_states=outputs.encoder_last_hidden_state, logits=outputs.logits)
    wanted = {
        "/".join(path): leaf.shape for path, leaf in flatten_dict(model.params_shape_tree).items()
    }
    loaded = {"/".join(path): leaf.shape for path, leaf in flatten_dict(params).items()}
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    has_normalizer = (Path(folder) / "normalizer.json").is_file()
    return {
        "missing": sorted(wanted.keys() - loaded.keys()),
        "unexpected": sorted(loaded.keys() - wanted.keys()),
        "mismatched": sorted(k for k in wanted.keys() & loaded.keys() if wanted[k] != loaded[k]),
        "alignment_heads": getattr(model.generation_config, "alignment_heads", None),
        "end_of_text": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "round_trip": tokenizer.decode(tokenizer(" hello").input_ids, skip_special_tokens=True),
        "normalized": tokenizer.normalize("colour") if has_normalizer else None,
    }


for line in sys.stdin:
    print(json.dumps(compute(*json.loads(line))), flush=True)
