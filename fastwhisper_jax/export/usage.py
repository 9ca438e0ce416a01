"""Writes commands that run an export in each runtime, for the model card."""

import dataclasses

from fastwhisper_jax.audio.constants import FULL_CONTEXT_SECONDS, SAMPLE_RATE_HZ
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

_MULTILINGUAL_VOCABULARY = 51865  # English-only models have one token less
# The source of pywhispercpp holds whisper.cpp's converter. The converter reads mel filters, which
# are in the source of openai-whisper.
_PYWHISPERCPP, _OPENAI_WHISPER = "1.5.1", "20250625"


@dataclasses.dataclass(frozen=True)
class Usage:
    """The commands for one runtime.

    They expect the folder of the export and `speech.wav` (16 kHz, mono, 16 bit) in the working
    folder.

    Attributes:
        runtime: its name, and the precision of the weights if it offers several.
        install: shell command that installs it.
        convert: shell commands that convert the export to its own format; may be empty.
        python: a program that prints the text of the recording.
        remark: text for the user; may be empty.
    """

    runtime: str
    install: str
    convert: str
    python: str
    remark: str = ""


def usages(name: str, dims: ModelDimensions, language: str, dtype: str) -> tuple[Usage, ...]:
    """Returns the commands for each runtime that can run an export.

    Args:
        name: the folder of the export.
        dims: its sizes. faster-whisper and whisper.cpp need windows of 30 s.
        language: code of the language to ask for, if the model knows several.
        dtype: dtype of its weights. whisper.cpp's converter does not read bfloat16.
    """
    option = language if dims.n_vocab >= _MULTILINGUAL_VOCABULARY else ""
    runtimes = [_transformers(name, option), _flax_whisper(name, option)]
    if dims.context_seconds >= FULL_CONTEXT_SECONDS:
        runtimes += [_faster_whisper(name, language, kind) for kind in ("float32", "int8")]
        if dtype != "bfloat16":
            runtimes.append(_whisper_cpp(name, language))
    return tuple(runtimes)


def usage_section(name: str, dims: ModelDimensions, language: str, dtype: str) -> str:
    """Returns the commands of `usages` as a section of Markdown."""
    parts = [
        "## Use",
        f"Run these commands where the folder `{name}` and a recording `speech.wav` (16 kHz, mono,"
        " 16 bit) are:",
    ]
    for usage in usages(name, dims, language, dtype):
        parts += [f"### {usage.runtime}", usage.remark, f"```bash\n{usage.install}\n```"]
        parts += [f"```bash\n{usage.convert}\n```"] if usage.convert else []
        parts += [f"```python\n{usage.python}\n```"]
    if dtype == "bfloat16" and dims.context_seconds >= FULL_CONTEXT_SECONDS:
        parts.append("whisper.cpp's converter does not read bfloat16; export float32 for it.")
    return "\n\n".join(part for part in parts if part)


def _transformers(name: str, language: str) -> Usage:
    options = f', generate_kwargs={{"language": "{language}"}}' if language else ""
    return Usage(
        "transformers (PyTorch)",
        "pip install torch transformers soundfile",
        "",
        f"""import soundfile
from transformers import pipeline

transcribe = pipeline("automatic-speech-recognition", model="{name}")
samples, rate = soundfile.read("speech.wav", dtype="float32")
speech = {{"raw": samples, "sampling_rate": rate}}
print(transcribe(speech{options})["text"])""",
    )


def _flax_whisper(name: str, language: str) -> Usage:
    options = f', language="<|{language}|>", task="transcribe"' if language else ""
    return Usage(
        "FlaxWhisper (transformers 4.57)",
        "pip install transformers==4.57.6 jax==0.10.2 flax==0.12.8",
        "",
        f"""from scipy.io import wavfile
from transformers import FlaxWhisperForConditionalGeneration, WhisperProcessor

model = FlaxWhisperForConditionalGeneration.from_pretrained("{name}")
processor = WhisperProcessor.from_pretrained("{name}")
rate, samples = wavfile.read("speech.wav")
features = processor(samples / 32768, sampling_rate=rate, return_tensors="np").input_features
tokens = model.generate(features{options}).sequences
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])""",
    )


def _faster_whisper(name: str, language: str, kind: str) -> Usage:
    folder = f"{name}-ct2" if kind == "float32" else f"{name}-ct2-{kind}"
    remark = (
        "faster-whisper pads the log-mel of a recording shorter than 30 s with zeros. To Whisper,"
        " zeros are noise, not silence. The code below pads the audio with silence instead, as in"
        " training."
    )
    return Usage(
        f"faster-whisper, {kind}",
        "pip install faster-whisper transformers torch",
        f"""ct2-transformers-converter --model {name} --output_dir {folder} \\
    --quantization {kind} --copy_files tokenizer.json preprocessor_config.json""",
        f"""import numpy as np
from faster_whisper import WhisperModel, decode_audio

model = WhisperModel("{folder}", device="cpu", compute_type="{kind}")
speech = decode_audio("speech.wav")
speech = np.pad(speech, (0, max(0, 30 * {SAMPLE_RATE_HZ:_} - len(speech))))
segments, _ = model.transcribe(speech, language="{language}", without_timestamps=True)
print("".join(segment.text for segment in segments))""",
        remark if kind == "float32" else "",
    )


def _whisper_cpp(name: str, language: str) -> Usage:
    converter, filters = f"pywhispercpp-{_PYWHISPERCPP}", f"openai_whisper-{_OPENAI_WHISPER}"
    return Usage(
        "whisper.cpp",
        "pip install pywhispercpp transformers torch",
        f"""pip download --no-deps --no-binary pywhispercpp,openai-whisper \\
    pywhispercpp=={_PYWHISPERCPP} openai-whisper=={_OPENAI_WHISPER}
tar -xzf {converter}.tar.gz && tar -xzf {filters}.tar.gz
mkdir -p {name}-ggml
python {converter}/whisper.cpp/models/convert-h5-to-ggml.py \\
    {name} {filters} {name}-ggml""",
        f"""from pywhispercpp.model import Model

model = Model("{name}-ggml/ggml-model.bin", language="{language}", no_timestamps=True)
print("".join(segment.text for segment in model.transcribe("speech.wav")))""",
        "The converter and OpenAI's mel filters come from two source packages. The converted file"
        " holds matrices in float16. whisper.cpp's own programs read it too.",
    )
