"""How an export is used in each runtime: commands that run as they stand, for the model card."""

import dataclasses

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions

FULL_CONTEXT_SECONDS = 30.0
_MULTILINGUAL_VOCABULARY = 51865  # English-only models have one token less
# The releases whose sources hold whisper.cpp's converter and the mel filters that it reads.
_CONVERTER, _FILTERS = "pywhispercpp-1.5.1", "openai_whisper-20250625"


@dataclasses.dataclass(frozen=True)
class Usage:
    """One runtime's commands.

    They expect the export's folder and `speech.wav` (16 kHz, mono, 16 bit) in the working folder.

    Attributes:
        runtime: its name, with the weights' precision where it offers several.
        install: shell command that installs it.
        convert: shell commands that make its own files of the export, or nothing.
        python: a program that prints the text of the recording.
        remark: what to know, or nothing.
    """

    runtime: str
    install: str
    convert: str
    python: str
    remark: str = ""


def usages(name: str, dims: ModelDimensions, language: str, dtype: str) -> tuple[Usage, ...]:
    """The runtimes that can run an export, and how.

    Args:
        name: the export's folder.
        dims: its sizes; faster-whisper and whisper.cpp insist on windows of 30 s.
        language: code that it is asked for, where it knows several.
        dtype: of its weights; whisper.cpp's converter does not read bfloat16.
    """
    spoken = language if dims.n_vocab >= _MULTILINGUAL_VOCABULARY else ""
    found = [_transformers(name, spoken), _flax_whisper(name, spoken)]
    if dims.context_seconds >= FULL_CONTEXT_SECONDS:
        found += [_faster_whisper(name, language, kind) for kind in ("float32", "int8")]
        if dtype != "bfloat16":
            found.append(_whisper_cpp(name, language))
    return tuple(found)


def usage_section(name: str, dims: ModelDimensions, language: str, dtype: str) -> str:
    """The same as a section of Markdown."""
    parts = [
        "## Use",
        f"Beside the folder `{name}` and a recording `speech.wav` (16 kHz, mono, 16 bit):",
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
        "faster-whisper fills the log-mel of a recording shorter than 30 s up with zeros, which to"
        " Whisper is noise, not silence. Give it silence instead, as below: it then hears what the"
        " model heard in training."
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
speech = np.pad(speech, (0, max(0, 30 * 16_000 - len(speech))))
segments, _ = model.transcribe(speech, language="{language}", without_timestamps=True)
print("".join(segment.text for segment in segments))""",
        remark if kind == "float32" else "",
    )


def _whisper_cpp(name: str, language: str) -> Usage:
    return Usage(
        "whisper.cpp",
        "pip install pywhispercpp transformers torch",
        f"""pip download --no-deps --no-binary pywhispercpp,openai-whisper \\
    {_CONVERTER.replace("-", "==")} {_FILTERS.replace("_", "-").replace("-2", "==2")}
tar -xzf {_CONVERTER}.tar.gz && tar -xzf {_FILTERS}.tar.gz
mkdir -p {name}-ggml
python {_CONVERTER}/whisper.cpp/models/convert-h5-to-ggml.py \\
    {name} {_FILTERS} {name}-ggml""",
        f"""from pywhispercpp.model import Model

model = Model("{name}-ggml/ggml-model.bin", language="{language}", no_timestamps=True)
print("".join(segment.text for segment in model.transcribe("speech.wav")))""",
        "Its converter and OpenAI's mel filters come from two source packages. Matrices are stored"
        " in float16. whisper.cpp's own programs read the same file.",
    )
