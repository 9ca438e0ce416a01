"""Long recordings and word timestamps against PyTorch, which lives in an interpreter of its own."""

import json
import os
import subprocess

import jiwer
import numpy as np
import pytest
import soundfile

from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.audio.files import load_audio
from fastwhisper_jax.commands import transcribe
from fastwhisper_jax.data.manifest import read_manifest
from fastwhisper_jax.evaluation.normalizers import normalizer

RATE = 16_000
SECONDS = float(os.environ.get("FASTWHISPER_REAL_LONG_SECONDS", "45"))
MOST_WORD_ERRORS = 0.01
CLOSE_SECONDS, CLOSE_WORDS = 0.1, 0.95
LONG = ("alone", "conditioned", "beams")

TRANSFORMERS = """
import json, sys
import soundfile, torch
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

folder, work = sys.argv[1], json.load(sys.stdin)
model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
extractor = WhisperFeatureExtractor.from_pretrained(folder)
tokenizer = WhisperTokenizer.from_pretrained(folder)
prompt = {"language": "en", "task": "transcribe"}
for mode, files in work.items():
    results = []
    for file in files:
        audio, rate = soundfile.read(file, dtype="float32")
        if mode == "words":
            pipeline = AutomaticSpeechRecognitionPipeline(
                model, tokenizer=tokenizer, feature_extractor=extractor
            )
            output = pipeline(
                {"raw": audio, "sampling_rate": rate},
                return_timestamps="word",
                generate_kwargs=prompt,
            )
            results.append([[chunk["text"], *chunk["timestamp"]] for chunk in output["chunks"]])
            continue
        inputs = extractor(
            audio,
            sampling_rate=rate,
            return_tensors="pt",
            truncation=False,
            padding="longest",
            return_attention_mask=True,
        )
        with torch.no_grad():
            tokens = model.generate(
                inputs.input_features,
                attention_mask=inputs.attention_mask,
                return_timestamps=True,
                temperature=0.0,
                no_speech_threshold=0.6,
                logprob_threshold=-1.0,
                condition_on_prev_tokens=mode == "conditioned",
                num_beams=5 if mode == "beams" else 1,
                **prompt,
            )
        results.append(tokenizer.decode(tokens[0], skip_special_tokens=True))
    print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def theirs(real_teacher, long_recording, word_recordings):
    """What PyTorch makes of the recordings in each way, in one process."""
    interpreter = os.environ.get("FASTWHISPER_TORCH_PYTHON")
    if not interpreter:
        pytest.skip("FASTWHISPER_TORCH_PYTHON is not set: a Python with torch and transformers")
    work = dict.fromkeys(LONG, [str(long_recording)]) | {"words": list(map(str, word_recordings))}
    done = subprocess.run(
        [interpreter, "-c", TRANSFORMERS, str(real_teacher)],
        input=json.dumps(work),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Libraries may print as well.
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return dict(zip(work, map(json.loads, lines), strict=True))


def our_transcripts(teacher, files, **fields):
    printed = []
    given = TranscribeArguments(
        str(teacher), tuple(map(str, files)), format="json", language="en", **fields
    )
    assert transcribe.run(given, printed.append)
    return [json.loads(content) for content in printed]


@pytest.fixture(scope="module")
def clips(real_data):
    utterances = read_manifest(real_data / "asterisk-en" / "test.jsonl")
    return [load_audio(utterance.audio) for utterance in utterances]


@pytest.fixture(scope="module")
def long_recording(clips, tmp_path_factory):
    """Clips with silences between them, as often as it takes."""
    generator = np.random.default_rng(0)
    parts, samples, index = [], 0, 0
    while samples < SECONDS * RATE:
        gap = generator.choice([0.3, 0.6, 1.0, 2.0, 4.0, 8.0], p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
        parts += [clips[index % len(clips)], np.zeros(round(gap * RATE), np.float32)]
        samples += len(parts[-2]) + len(parts[-1])
        index += 1
    path = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(path, np.concatenate(parts)[: round(SECONDS * RATE)], RATE)
    return path


@pytest.fixture(scope="module")
def word_recordings(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    longest = sorted(clips, key=len)[-3:]
    files = [folder / f"{number}.flac" for number in range(len(longest))]
    for path, clip in zip(files, longest, strict=True):
        soundfile.write(path, clip, RATE)
    return files


@pytest.mark.real
@pytest.mark.parametrize("mode", LONG)
def test_a_long_recording_is_transcribed_as_by_transformers(
    real_teacher, long_recording, theirs, mode
):
    (ours,) = our_transcripts(
        real_teacher,
        [long_recording],
        fallback=False,
        previous_text=mode == "conditioned",
        beam=5 if mode == "beams" else 1,
    )
    plain = normalizer("english")
    errors = jiwer.wer(plain(*theirs[mode]), plain(ours["text"]))
    print(f"WER between the two, {mode}, {SECONDS:g} s: {errors:.4f}")
    assert errors <= MOST_WORD_ERRORS


def spelled(word):
    return word.strip().strip(".,?!").lower()


@pytest.mark.real
def test_words_are_spoken_when_transformers_says(real_teacher, word_recordings, theirs):
    ours = our_transcripts(real_teacher, word_recordings, fallback=False, word_timestamps=True)
    distances, agreeing = [], 0
    for mine, other in zip(ours, theirs["words"], strict=True):
        words = [word for segment in mine["segments"] for word in segment["words"]]
        # Times are compared where the words are the same, but for a comma that one of them hears.
        if [spelled(word["word"]) for word in words] != [spelled(text) for text, *_ in other]:
            continue
        agreeing += 1
        for word, (_, start, end) in zip(words, other, strict=True):
            end = word["end"] if end is None else end
            distances.append(max(abs(word["start"] - start), abs(word["end"] - end)))
    assert agreeing >= 0.9 * len(word_recordings)
    close = np.mean(np.array(distances) <= CLOSE_SECONDS + 1e-6)
    print(f"{close:.3f} of {len(distances)} words, the farthest {max(distances):.2f} s away")
    assert close >= CLOSE_WORDS
