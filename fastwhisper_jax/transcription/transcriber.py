"""From a model and the user's options to what the long-form loop is given."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.decoding.fallback import Thresholds
from fastwhisper_jax.decoding.prefill import WhisperModel
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.decoding.timestamps import TimestampRules
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.timestamp_labels import TRAINED_WITH_TIMESTAMPS
from fastwhisper_jax.models.whisper.tokens import no_timestamps_token
from fastwhisper_jax.transcription.long_form import LongFormSettings, transcribe_recordings
from fastwhisper_jax.transcription.options import TranscriptionOptions
from fastwhisper_jax.transcription.prompt_format import make_prompt_format, spoken_language
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.speech_segments import transcribe_speech_segments
from fastwhisper_jax.transcription.window_model import Heads, WindowModel, make_window_model

if TYPE_CHECKING:
    from transformers import WhisperTokenizer

# About how long people speak between two pauses.
_SPEECH_SEGMENT_SECONDS = 4.0


class Transcriber(NamedTuple):
    """A model, and how recordings go through it.

    Attributes:
        model: the model as `transcribe` takes it.
        settings: the settings as `transcribe` takes them.
        language: code of all recordings' language; None detects each one's.
        transcribe: `transcribe_recordings` or `transcribe_speech_segments`.
    """

    model: WindowModel
    settings: LongFormSettings
    language: str | None
    transcribe: Callable[
        [Iterator[Any], WindowModel, LongFormSettings], Iterator[tuple[int, Transcript]]
    ]


def make_transcriber(
    options: TranscriptionOptions,
    model: WhisperModel,
    windows: Windows,
    generation_config: Mapping[str, Any],
    tokenizer: "WhisperTokenizer",
    name: str,
    seconds: Sequence[float],
    on_progress: Callable[[int], None],
) -> Transcriber:
    """Checks that a model can do what the options ask for, and prepares it.

    Args:
        options: what the user chose.
        model: the model, on one device, in the compute dtype.
        windows: those of its windows that may be used.
        generation_config: of the model.
        tokenizer: of the model.
        name: the model's folder, for errors.
        seconds: lengths of the recordings.
        on_progress: told how many more seconds of audio are done.

    Raises:
        InputError: the model cannot do what the options ask for.
    """
    dims = model.dims
    heads = _alignment_heads(generation_config, dims, name) if options.word_timestamps else ()
    first_timestamp = no_timestamps_token(tokenizer) + 1
    cuts_at_pauses = _cuts_at_pauses(options.cut, generation_config, dims, first_timestamp, name)
    rules = decoding_rules(generation_config)
    prompt_format = make_prompt_format(
        tokenizer,
        generation_config,
        rules.end_of_text,
        task=options.task,
        has_timestamps=not cuts_at_pauses,
        most_previous=0 if cuts_at_pauses or not options.previous_text else _most_previous(dims),
    )
    language = spoken_language(tokenizer, prompt_format.languages, options.language, options.task)
    longest_text = dims.n_text_ctx - prompt_format.start_length
    most_previous = prompt_format.most_previous
    if longest_text - most_previous - bool(most_previous) < 1:
        raise InputError(
            f"{name} has a text context of {dims.n_text_ctx} tokens, which a prompt fills; add "
            "--no-previous-text"
        )
    if not cuts_at_pauses:
        timestamps = TimestampRules(rules.end_of_text, first_timestamp - 1, dims.n_audio_ctx)
        rules = dataclasses.replace(rules, timestamps=timestamps)
    settings = LongFormSettings(
        prompt_format=prompt_format,
        thresholds=Thresholds() if options.fallback else Thresholds(temperatures=(0.0,)),
        slots=min(options.batch_size, _most_slots(seconds, cuts_at_pauses)),
        windows=windows,
        decode=lambda tokens: str(
            tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        ),
        max_new_tokens=min(options.max_new_tokens, longest_text),
        word_timestamps=options.word_timestamps,
        on_progress=_in_whole_seconds(on_progress),
    )
    return Transcriber(
        make_window_model(
            model, prompt_format, rules, settings.max_new_tokens, options.beam, heads
        ),
        settings,
        language,
        transcribe_speech_segments if cuts_at_pauses else transcribe_recordings,
    )


def _most_previous(dims: ModelDimensions) -> int:
    """Half the text context, without the token that starts previous text."""
    return max(dims.n_text_ctx // 2 - 1, 0)


def _most_slots(seconds: Sequence[float], cuts_at_pauses: bool) -> int:
    """How many recordings there are, or about how many speech segments in them."""
    if not cuts_at_pauses:
        return len(seconds)
    return sum(max(1, round(length / _SPEECH_SEGMENT_SECONDS)) for length in seconds)


def _cuts_at_pauses(
    cut: str | None,
    generation_config: Mapping[str, Any],
    dims: ModelDimensions,
    first_timestamp: int,
    name: str,
) -> bool:
    """Whether windows end at pauses: the user says so, or the model writes no timestamps."""
    last_timestamp = first_timestamp + dims.n_audio_ctx
    has_timestamps = last_timestamp < dims.n_vocab
    if cut == "timestamps" and not has_timestamps:
        raise InputError(
            f"{name} has no timestamps in its vocabulary of {dims.n_vocab} tokens, which "
            f"--cut timestamps needs up to token {last_timestamp}; use --cut pauses"
        )
    if cut is not None:
        return cut == "pauses"
    return not (has_timestamps and generation_config.get(TRAINED_WITH_TIMESTAMPS, True))


def _alignment_heads(
    generation_config: Mapping[str, Any], dims: ModelDimensions, name: str
) -> Heads:
    """The (layer, head) pairs that show when words are spoken."""
    heads = tuple((layer, head) for layer, head in generation_config.get("alignment_heads") or ())
    layers, layer_heads = range(dims.n_text_layer), range(dims.n_text_head)
    if not heads or any(layer not in layers or head not in layer_heads for layer, head in heads):
        fault = (
            "names alignment_heads that the model does not have"
            if heads
            else "has no alignment_heads"
        )
        raise InputError(
            f"the generation_config.json of {name} {fault}, but --word-timestamps needs them; "
            "leave the option out, or name (layer, head) pairs there"
        )
    return heads


def _in_whole_seconds(on_progress: Callable[[int], None]) -> Callable[[float], None]:
    """Reports fractions of seconds as whole ones, and keeps the rest for the next call."""
    rest = 0.0

    def count(seconds: float) -> None:
        nonlocal rest
        whole, rest = divmod(rest + seconds, 1.0)
        on_progress(int(whole))

    return count
