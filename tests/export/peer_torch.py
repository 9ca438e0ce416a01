"""Runs in an environment with PyTorch and transformers 5, which take seconds to import.

Each line of standard input is a JSON list of a Hugging Face folder, IN.npz and OUT.npz. The script
loads the folder, writes encoder output and logits for `log_mel` (B, M, L) and `tokens` (B, T), and
answers with one JSON line about how the weights and the tokenizer loaded.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, WhisperForConditionalGeneration


def compute(folder, inputs_path, outputs_path):
    inputs = np.load(inputs_path)
    model, info = WhisperForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    with torch.inference_mode():
        outputs = model.eval()(
            input_features=torch.tensor(inputs["log_mel"]),
            decoder_input_ids=torch.tensor(inputs["tokens"]).long(),
        )
    np.savez(
        outputs_path,
        encoder_states=outputs.encoder_last_hidden_state.numpy(),
        logits=outputs.logits.numpy(),
    )
    processor = AutoProcessor.from_pretrained(folder)
    extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    has_normalizer = (Path(folder) / "normalizer.json").is_file()
    return {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "mismatched": sorted(map(str, info["mismatched_keys"])),
        "alignment_heads": getattr(model.generation_config, "alignment_heads", None),
        "end_of_text": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "round_trip": tokenizer.decode(tokenizer(" hello").input_ids, skip_special_tokens=True),
        "normalized": tokenizer.normalize("colour") if has_normalizer else None,
        "features": list(extractor(np.zeros(16000), sampling_rate=16000).input_features[0].shape),
    }


for line in sys.stdin:
    print(json.dumps(compute(*json.loads(line))), flush=True)
