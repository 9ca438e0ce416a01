"""`fastwhisper transcribe`: recordings of any length to text, JSON or subtitles."""

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax

from fastwhisper_jax.audio.files import audio_seconds
from fastwhisper_jax.audio.recordings import RecordingFeatures
from fastwhisper_jax.commands.transcribe_arguments import Options
from fastwhisper_jax.decoding.prefill import WhisperModel
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import place_params
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.export.hf_load import load_model, resolve_model
from fastwhisper_jax.files import printable, write_whole
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.progress import progress
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.transcription import writers
from fastwhisper_jax.transcription.options import TranscriptionOptions
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.transcriber import make_transcriber

Say = Callable[[str], None]


def run(options: Options, say: Say) -> bool:
    """Transcribes files; what cannot be read is named on standard error and left out.

    Args:
        options: of the command.
        say: prints to standard output.

    Returns:
        Whether all files were transcribed.

    Raises:
        InputError: model or options cannot be used, or no file can be read.
    """
    _check(options)
    failures = _Failures()
    seconds = dict(_lengths(options.files, failures))
    if not seconds:
        several = f"none of {len(options.files)} files can be read; the first: "
        raise InputError((several if len(options.files) > 1 else "") + failures.first)
    failures.show()
    targets = _targets(options)
    mesh = make_mesh(1, 1, devices=jax.devices()[:1])
    loaded = load_model(resolve_model(options.model))
    tokenizer = load_tokenizer(loaded.folder)
    params = place_params(loaded.params, options.dtype, mesh)
    with progress(round(sum(seconds.values())), "transcribe", "s of audio") as advance:
        names = [field.name for field in dataclasses.fields(TranscriptionOptions)]
        transcriber = make_transcriber(
            TranscriptionOptions(**{name: getattr(options, name) for name in names}),
            WhisperModel(params, loaded.dims, model_options(mesh, options.dtype)),
            loaded.generation_config,
            tokenizer,
            str(loaded.folder),
            [*seconds.values()],
            advance,
        )
        if options.out is not None:
            _make_folder(options.out)
        features = functools.partial(
            RecordingFeatures, n_mels=loaded.dims.n_mels, window_frames=loaded.dims.n_frames
        )
        opened = _opened(options.files, seconds, features, failures)
        recordings = ((index, recording, transcriber.language) for index, recording in opened)
        waiting: dict[int, Transcript] = {}
        order = iter(seconds)
        upcoming = next(order, None)
        transcripts = transcriber.transcribe(recordings, transcriber.model, transcriber.settings)
        for index, transcript in transcripts:
            if targets:
                _write(transcript, options, index, targets[index])
                continue
            waiting[index] = transcript
            # Standard output keeps the order of the files; who cannot be read is not waited for.
            while upcoming in waiting or upcoming in failures.indices:
                if upcoming in waiting:
                    say(_render(waiting.pop(upcoming), options, upcoming).rstrip("\n"))
                upcoming = next(order, None)
    return not failures.indices


class _Failures:
    """Files that cannot be read: named once, counted at the end."""

    def __init__(self) -> None:
        self.indices: set[int] = set()
        self.first = ""
        self._unseen: list[str] = []

    def add(self, index: int, error: InputError) -> None:
        self.indices.add(index)
        self.first = self.first or str(error)
        self._unseen.append(f"error: {' '.join(str(error).split())}")

    def show(self) -> None:
        for line in self._unseen:
            print(line, file=sys.stderr, flush=True)
        self._unseen.clear()


def _check(options: Options) -> None:
    for name in ("beam", "batch_size", "max_new_tokens"):
        value = getattr(options, name)
        if value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} must be at least 1")
    if options.word_timestamps and options.format == "txt":
        raise InputError(
            "--word-timestamps is given with --format txt, which holds no times; choose json, srt "
            "or vtt"
        )
    if options.out is None and options.format in ("srt", "vtt") and len(options.files) > 1:
        raise InputError(
            f"{len(options.files)} files cannot share one {options.format} on standard output; "
            "name a folder for them with --out DIR"
        )
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out} is a file; it must be a folder: name another")


def _lengths(files: tuple[str, ...], failures: _Failures) -> Iterator[tuple[int, float]]:
    for index, file in enumerate(files):
        try:
            if not Path(file).is_file():
                raise InputError(f"there is no file {file!r}; give paths of audio files")
            yield index, audio_seconds(file)
        except InputError as error:
            failures.add(index, error)


def _opened(
    files: tuple[str, ...],
    seconds: Mapping[int, float],
    features: Callable[[str], RecordingFeatures],
    failures: _Failures,
) -> Iterator[tuple[int, RecordingFeatures]]:
    for index in seconds:
        try:
            yield index, features(files[index])
        except InputError as error:
            failures.add(index, error)
            failures.show()


def _targets(options: Options) -> dict[int, Path]:
    """Where each file's transcript goes.

    talk.flac becomes talk.srt, or talk.flac.srt where there is a talk.mp3 too.
    """
    if options.out is None:
        return {}
    stems = Counter(Path(file).stem for file in options.files)
    names = {
        index: Path(file).stem if stems[Path(file).stem] == 1 else Path(file).name
        for index, file in enumerate(options.files)
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise InputError(
                f"{count} files are called {name}; each needs its own {name}.{options.format} in "
                f"{options.out}: transcribe them into different folders"
            )
    return {index: options.out / f"{name}.{options.format}" for index, name in names.items()}


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be made ({error.strerror}); name a folder that is writable"
        ) from error


def _write(transcript: Transcript, options: Options, index: int, target: Path) -> None:
    try:
        write_whole(target, _render(transcript, options, index))
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}); --out must be a folder that is "
            "writable, with room"
        ) from error


def _render(transcript: Transcript, options: Options, index: int) -> str:
    file, to_folder = printable(options.files[index]), options.out is not None
    is_one_of_many = len(options.files) > 1 and not to_folder
    if options.format == "srt":
        return writers.write_srt(transcript)
    if options.format == "vtt":
        return writers.write_vtt(transcript)
    if options.format == "json":
        return writers.write_json(transcript, file, indent=None if is_one_of_many else 2)
    heading = f"{file}:\n" if is_one_of_many else ""
    return heading + writers.write_txt(transcript)
