"""PyTorch as a contender of step.py: the same step as one would write it with transformers.

    python benchmarks/peer_torch.py MODEL frozen|full BATCH TOKENS STEPS

Runs under an interpreter with PyTorch and transformers 5; this package is not imported. The frozen
encoder is run once, for teacher and student.
"""

import copy
import os
import sys
import time

import torch
import torch.nn.functional as F
from side_by_side import print_times
from transformers import WhisperForConditionalGeneration

TEMPERATURE = 2.0


def main(model: str, mode: str, batch_size: int, length: int, steps: int) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    teacher = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    config = copy.deepcopy(teacher.config)
    config.decoder_layers = 2
    student = WhisperForConditionalGeneration(config)
    student.model.encoder.load_state_dict(teacher.model.encoder.state_dict())
    if mode == "frozen":
        student.model.encoder.requires_grad_(False)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)
    log_mel = torch.randn(batch_size, teacher.config.num_mel_bins, 3000)
    tokens = torch.randint(0, 50_000, (batch_size, length))

    def step() -> None:
        with torch.no_grad():
            taught = teacher(input_features=log_mel, decoder_input_ids=tokens)
        if mode == "frozen":
            encoder_states = (taught.encoder_last_hidden_state,)
            learnt = student(encoder_outputs=encoder_states, decoder_input_ids=tokens)
        else:
            learnt = student(input_features=log_mel, decoder_input_ids=tokens)
        kl = F.kl_div(
            F.log_softmax(learnt.logits / TEMPERATURE, -1),
            F.softmax(taught.logits / TEMPERATURE, -1),
            reduction="sum",
        )
        loss = F.cross_entropy(learnt.logits.flatten(0, 1), tokens.flatten())
        (0.8 * loss + kl / tokens.numel() * TEMPERATURE**2).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print_times(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
