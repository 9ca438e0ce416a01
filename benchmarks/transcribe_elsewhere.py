"""Runs in the environment of another runtime: `transcribe_elsewhere.py RUNTIME MODEL IN.npz`.

IN.npz holds `language`, `task`, `max_new_tokens`, the number of `utterances`, and 16 kHz waveforms
"0", "1", ...
Everybody decodes greedily: no fallback to other temperatures, no timestamps, no text of an
utterance before. Prints one JSON line: the texts, in order.

MODEL is the folder of an export; for faster-whisper what ct2-transformers-converter made of it, for
whisper.cpp the file that convert-h5-to-ggml.py made of it.
"""

import functools
import json
import sys

import numpy as np

SAMPLE_RATE_HZ = 16_000
SEVERAL = 4  # utterances at a time, where a runtime takes several


def transformers(model, waveforms, language, task, max_new_tokens):
    """PyTorch, float32."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(model)
    whisper = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    spoken = {"language": language, "task": task}
    if not getattr(whisper.generation_config, "is_multilingual", True):
        spoken = {}
    for start in range(0, len(waveforms), SEVERAL):
        features = processor(
            waveforms[start : start + SEVERAL], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt"
        ).input_features
        with torch.inference_mode():
            tokens = whisper.generate(
                features, num_beams=1, do_sample=False, max_new_tokens=max_new_tokens, **spoken
            )
        yield from processor.batch_decode(tokens, skip_special_tokens=True)


def flax_whisper(model, waveforms, language, task, max_new_tokens):
    """transformers 4.57, float32. Rows are filled up to one batch size: it compiles once."""
    from transformers import FlaxWhisperForConditionalGeneration, WhisperProcessor  # type: ignore[attr-defined]

    processor = WhisperProcessor.from_pretrained(model)
    whisper = FlaxWhisperForConditionalGeneration.from_pretrained(model)
    spoken = {"language": f"<|{language}|>", "task": task}
    if not getattr(whisper.generation_config, "is_multilingual", True):
        spoken = {}
    silence = np.zeros(SAMPLE_RATE_HZ, np.float32)
    for start in range(0, len(waveforms), SEVERAL):
        rows = waveforms[start : start + SEVERAL]
        features = processor(
            rows + [silence] * (SEVERAL - len(rows)),
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="np",
        ).input_features
        tokens = whisper.generate(
            features, num_beams=1, do_sample=False, max_new_tokens=max_new_tokens, **spoken
        ).sequences
        yield from processor.batch_decode(tokens[: len(rows)], skip_special_tokens=True)


def faster_whisper(model, waveforms, language, task, max_new_tokens, *, compute_type):
    """CTranslate2 on the CPU."""
    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", compute_type=compute_type)
    for waveform in waveforms:
        segments, _ = whisper.transcribe(
            waveform,
            language=language,
            task=task,
            beam_size=1,
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=max_new_tokens,
        )
        yield "".join(segment.text for segment in segments)


def whisper_cpp(model, waveforms, language, task, max_new_tokens):
    """pywhispercpp. The converter stores matrices in float16."""
    from pywhispercpp.model import Model

    whisper = Model(
        model,
        redirect_whispercpp_logs_to=None,
        language=language,
        translate=task == "translate",
        temperature=0.0,
        temperature_inc=0.0,
        no_context=True,
        no_timestamps=True,
        single_segment=True,
        suppress_nst=True,
        print_progress=False,
        print_realtime=False,
        print_timestamps=False,
        max_tokens=max_new_tokens,
    )
    for waveform in waveforms:
        yield "".join(segment.text for segment in whisper.transcribe(waveform))


RUNTIMES = {
    "transformers": transformers,
    "flax_whisper": flax_whisper,
    "faster_whisper_float32": functools.partial(faster_whisper, compute_type="float32"),
    "faster_whisper_int8": functools.partial(faster_whisper, compute_type="int8"),
    "whisper_cpp": whisper_cpp,
}

if __name__ == "__main__":
    runtime, folder, inputs_path = sys.argv[1:]
    inputs = np.load(inputs_path)
    settings = [inputs[name].item() for name in ("language", "task", "max_new_tokens")]
    audio = [inputs[str(index)] for index in range(int(inputs["utterances"]))]
    print(json.dumps(list(RUNTIMES[runtime](folder, audio, *settings))))
