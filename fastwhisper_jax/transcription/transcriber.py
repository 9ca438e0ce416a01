"""From a loaded model and the options of `transcribe` to what the long-form loop is given."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jax.sharding import Mesh

from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.decoding.fallback import Thresholds
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.decoding.timestamps import TimestampRules
from fastwhisper_jax.decoding.windows import WindowRules
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_load import LoadedModel
from fastwhisper_jax.export.student_configs import TRAINED_WITH_TIMESTAMPS
from fastwhisper_jax.models.whisper.tokens import (
    is_multilingual,
    no_timestamps_token,
    prompt_tokens,
)
from fastwhisper_jax.progress import Advance
from fastwhisper_jax.transcription.long_form import LongForm, transcribe_recordings
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.slot import Prompts
from fastwhisper_jax.transcription.speech_segments import transcribe_pieces
from fastwhisper_jax.transcription.window_model import Heads, WindowModel, make_window_model

if TYPE_CHECKING:
    from transformers import WhisperTokenizer


# What lies between two pauses, about.
_PIECE_SECONDS = 4.0


class Transcriber(NamedTuple):
    """A model, and how recordings go through it.

    Attributes:
        model, how: as `transcribe` takes them.
        language: code of all recordings; None detects each one's.
        transcribe: `transcribe_recordings` or `transcribe_pieces`.
    """

    model: WindowModel
    how: LongForm
    language: str | None
    transcribe: Callable[[Iterator[Any], WindowModel, LongForm], Iterator[tuple[int, Transcript]]]


def prepare(
    options: TranscribeArguments,
    loaded: LoadedModel,
    tokenizer: "WhisperTokenizer",
    params: dict[str, Any],
    mesh: Mesh,
    seconds: Sequence[float],
    advance: Advance,
) -> Transcriber:
    """What the long-form loop needs of a model.

    Args:
        options: of the command.
        loaded: the model.
        tokenizer: its own.
        params: on the mesh, in the compute dtype.
        mesh: of one device.
        seconds: lengths of the recordings.
        advance: told the seconds of audio that are done.

    Raises:
        InputError: the model cannot do what the options ask for.
    """
    dims = loaded.dims
    heads = _alignment_heads(loaded) if options.word_timestamps else ()
    languages = _languages(tokenizer)
    language = _language(options, tokenizer, languages)
    cuts_at_pauses = _cuts_at_pauses(options, loaded, tokenizer)
    prompts = _prompts(options, loaded, tokenizer, languages, language, cuts_at_pauses)
    start_tokens = len(prompts.start_tokens(language or next(iter(languages), None)))
    room = dims.n_text_ctx - start_tokens - prompts.most_previous - bool(prompts.most_previous)
    max_new_tokens = min(options.max_new_tokens, dims.n_text_ctx - start_tokens)
    if room < 1:
        raise InputError(
            f"{loaded.folder} has a text context of {dims.n_text_ctx} tokens, which a prompt "
            "fills; add --no-previous-text"
        )
    rules = WindowRules(
        decoding=decoding_rules(loaded.generation_config),
        timestamps=None if cuts_at_pauses else _timestamp_rules(loaded, prompts),
        # In every Whisper's vocabulary it stands right before <|notimestamps|>.
        no_speech=prompts.timestamp_begin - 2,
        start_tokens=start_tokens,
        max_new_tokens=max_new_tokens,
    )
    model = make_window_model(
        params,
        dims,
        model_options(mesh, options.dtype),
        rules,
        prompts.start,
        tuple(languages.values()),
        heads,
        options.beam,
    )
    # Of no more recordings, or pieces of them, than there are likely to be.
    pieces = [max(1, round(length / _PIECE_SECONDS)) for length in seconds]
    how = LongForm(
        prompts=prompts,
        thresholds=Thresholds() if options.fallback else Thresholds(temperatures=(0.0,)),
        slots=min(options.batch_size, sum(pieces) if cuts_at_pauses else len(seconds)),
        window_frames=dims.n_frames,
        decode=lambda tokens: str(
            tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        ),
        max_new_tokens=max_new_tokens,
        word_timestamps=options.word_timestamps,
        on_progress=_in_whole_seconds(advance),
    )
    transcribe = transcribe_pieces if cuts_at_pauses else transcribe_recordings
    return Transcriber(model, how, language, transcribe)


def _cuts_at_pauses(
    options: TranscribeArguments, loaded: LoadedModel, tokenizer: "WhisperTokenizer"
) -> bool:
    """Whether windows end at pauses, because the user says so or the model writes no timestamps."""
    last = no_timestamps_token(tokenizer) + 1 + loaded.dims.n_audio_ctx
    has_timestamps = last < loaded.dims.n_vocab
    if options.cut == "timestamps" and not has_timestamps:
        raise InputError(
            f"{loaded.folder} has no timestamps in its vocabulary of {loaded.dims.n_vocab} tokens, "
            f"which --cut timestamps needs up to token {last}; use --cut pauses"
        )
    if options.cut is not None:
        return options.cut == "pauses"
    return not (has_timestamps and loaded.generation_config.get(TRAINED_WITH_TIMESTAMPS, True))


def _languages(tokenizer: "WhisperTokenizer") -> dict[str, int]:
    """Code to token of the languages that the model knows; none for an English-only model."""
    if not is_multilingual(tokenizer):
        return {}
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    tokens: dict[str, Any] = {
        code: tokenizer.convert_tokens_to_ids(f"<|{code}|>") for code in LANGUAGES
    }
    return {
        code: int(token)
        for code, token in tokens.items()
        if token is not None and tokenizer.convert_ids_to_tokens(token) == f"<|{code}|>"
    }


def _language(
    options: TranscribeArguments, tokenizer: "WhisperTokenizer", languages: dict[str, int]
) -> str | None:
    """The code of the language that is given; None where it is to be detected, or not known of."""
    if not languages:
        prompt_tokens(tokenizer, options.language, options.task)  # says what does not fit
        return None
    if options.language is None:
        return None
    token = prompt_tokens(tokenizer, options.language, options.task)[1]
    return next((code for code, known in languages.items() if known == token), None)


def _prompts(
    options: TranscribeArguments,
    loaded: LoadedModel,
    tokenizer: "WhisperTokenizer",
    languages: dict[str, int],
    language: str | None,
    cuts_at_pauses: bool,
) -> Prompts:
    spoken = language or next(iter(languages), None)
    start, *after = prompt_tokens(tokenizer, spoken, options.task)
    no_timestamps = after[-1]
    kept = after if cuts_at_pauses else after[:-1]
    # In every Whisper's vocabulary: ... previous, no speech, no timestamps, 0.00 s, ...
    previous = loaded.generation_config.get("prev_sot_token_id")
    shows_previous = options.previous_text and not cuts_at_pauses
    most_previous = loaded.dims.n_text_ctx // 2 - 1 if shows_previous else 0
    return Prompts(
        languages=languages,
        start=start,
        after_language=tuple(kept[bool(languages) :]),
        previous=no_timestamps - 2 if previous is None else previous,
        most_previous=max(most_previous, 0),
        timestamp_begin=no_timestamps + 1,
        end_of_text=decoding_rules(loaded.generation_config).end_of_text,
        is_translation=options.task == "translate",
    )


def _timestamp_rules(loaded: LoadedModel, prompts: Prompts) -> TimestampRules:
    return TimestampRules(
        end_of_text=prompts.end_of_text,
        no_timestamps=prompts.timestamp_begin - 1,
        last_timestamp=loaded.dims.n_audio_ctx,
    )


def _alignment_heads(loaded: LoadedModel) -> Heads:
    named = loaded.generation_config.get("alignment_heads") or ()
    heads = tuple((layer, head) for layer, head in named)
    layers, of_layer = range(loaded.dims.n_text_layer), range(loaded.dims.n_text_head)
    if not heads or any(layer not in layers or head not in of_layer for layer, head in heads):
        held = "names alignment_heads that the model has not" if heads else "has no alignment_heads"
        raise InputError(
            f"the generation_config.json of {loaded.folder} {held}, from which --word-timestamps "
            "are read; leave the option out, or name (layer, head) pairs there"
        )
    return heads


def _in_whole_seconds(advance: Advance) -> Callable[[float], None]:
    """Counts seconds of audio in whole ones, and keeps the rest for the next time."""
    rest = 0.0

    def count(seconds: float) -> None:
        nonlocal rest
        whole, rest = divmod(rest + seconds, 1.0)
        advance(int(whole))

    return count
