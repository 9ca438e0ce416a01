"""`fastwhisper transcribe`: turns recordings of any length into text, JSON or subtitles."""

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax

from fastwhisper_jax.arguments import TranscribeArguments
from fastwhisper_jax.audio.files import audio_seconds
from fastwhisper_jax.audio.recordings import RecordingFeatures
from fastwhisper_jax.audio.windows import window_frames
from fastwhisper_jax.decoding.prefill import WhisperModel, decoding_params
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import place_params
from fastwhisper_jax.errors import InputError, exit_of
from fastwhisper_jax.export.hf_load import load_model, resolve_model
from fastwhisper_jax.files import printable, write_whole
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.progress import progress
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.transcription import writers
from fastwhisper_jax.transcription.options import TranscriptionOptions
from fastwhisper_jax.transcription.segments import Transcript
from fastwhisper_jax.transcription.transcriber import make_transcriber

Log = Callable[[str], None]


def run(given: TranscribeArguments, log: Log) -> bool:
    """Transcribes files. Files that cannot be read are named on standard error and left out.

    Args:
        given: the arguments of the command.
        log: prints to standard output.

    Returns:
        Whether all files were transcribed.

    Raises:
        InputError: the model or an option cannot be used, or no file can be read.
    """
    _check(given)
    failures = _Failures()
    seconds = dict(_lengths(given.files, failures))
    if not seconds:
        several = f"none of {len(given.files)} files can be read; the first: "
        raise InputError((several if len(given.files) > 1 else "") + failures.first)
    failures.print()
    targets = _targets(given)
    mesh = make_mesh(1, 1, devices=jax.devices()[:1])
    loaded = load_model(resolve_model(given.model))
    tokenizer = load_tokenizer(loaded.folder)
    windows = loaded.windows
    if given.window is not None:
        windows = windows.only(given.window, "--window")
    options = model_options(mesh, given.dtype)
    params = decoding_params(place_params(loaded.params, given.dtype, mesh), loaded.dims, options)
    with progress(round(sum(seconds.values())), "transcribe", "s of audio") as advance:
        names = [field.name for field in dataclasses.fields(TranscriptionOptions)]
        transcriber = make_transcriber(
            TranscriptionOptions(**{name: getattr(given, name) for name in names}),
            WhisperModel(params, loaded.dims, options),
            windows,
            loaded.generation_config,
            tokenizer,
            str(loaded.folder),
            [*seconds.values()],
            advance,
        )
        if given.out is not None:
            _make_folder(given.out)
        features = functools.partial(
            RecordingFeatures,
            n_mels=loaded.dims.n_mels,
            window_frames=window_frames(windows.longest),
        )
        recordings = (
            (index, recording, transcriber.language)
            for index, recording in _open(given.files, seconds, features, failures)
        )
        waiting: dict[int, Transcript] = {}
        order = iter(seconds)
        upcoming = next(order, None)
        transcripts = transcriber.transcribe(recordings, transcriber.model, transcriber.settings)
        for index, transcript in transcripts:
            if targets:
                _write(transcript, given, index, targets[index])
                continue
            waiting[index] = transcript
            # Standard output keeps the order of the files, and skips those that cannot be read.
            while upcoming in waiting or upcoming in failures.indices:
                if upcoming in waiting:
                    log(_render(waiting.pop(upcoming), given, upcoming).rstrip("\n"))
                upcoming = next(order, None)
    return not failures.indices


class _Failures:
    """Files that cannot be read. Each is printed once."""

    def __init__(self) -> None:
        self.indices: set[int] = set()
        self.first = ""
        self._unprinted: list[str] = []

    def add(self, index: int, error: InputError) -> None:
        self.indices.add(index)
        self.first = self.first or str(error)
        self._unprinted.append(exit_of(error)[1])

    def print(self) -> None:
        for line in self._unprinted:
            print(line, file=sys.stderr, flush=True)
        self._unprinted.clear()


def _check(given: TranscribeArguments) -> None:
    """Checks that the options go with each other.

    Raises:
        InputError: an option does not go with another one.
    """
    if given.word_timestamps and given.format == "txt":
        raise InputError(
            "--word-timestamps is given with --format txt, which holds no times; choose json, srt "
            "or vtt"
        )
    if given.out is None and given.format in ("srt", "vtt") and len(given.files) > 1:
        raise InputError(
            f"{len(given.files)} files cannot share one {given.format} on standard output; "
            "name a folder for them with --out DIR"
        )
    if given.out is not None and given.out.exists() and not given.out.is_dir():
        raise InputError(f"--out {given.out} is a file; it must be a folder: name another")


def _lengths(files: Sequence[str], failures: _Failures) -> Iterator[tuple[int, float]]:
    """Yields the index and the seconds of each file that can be read."""
    for index, file in enumerate(files):
        try:
            if not Path(file).is_file():
                raise InputError(f"there is no file {file!r}; give paths of audio files")
            yield index, audio_seconds(file)
        except InputError as error:
            failures.add(index, error)


def _open(
    files: Sequence[str],
    indices: Iterable[int],
    features: Callable[[str], RecordingFeatures],
    failures: _Failures,
) -> Iterator[tuple[int, RecordingFeatures]]:
    """Yields the features of each file, one file at a time; prints what cannot be read."""
    for index in indices:
        try:
            yield index, features(files[index])
        except InputError as error:
            failures.add(index, error)
            failures.print()


def _targets(given: TranscribeArguments) -> dict[int, Path]:
    """The path of each file's transcript; none where they go to standard output.

    talk.flac becomes talk.srt, or talk.flac.srt where there is a talk.mp3 too.
    """
    if given.out is None:
        return {}
    stems = Counter(Path(file).stem for file in given.files)
    names = {
        index: Path(file).stem if stems[Path(file).stem] == 1 else Path(file).name
        for index, file in enumerate(given.files)
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise InputError(
                f"{count} files are called {name}; each needs its own {name}.{given.format} in "
                f"{given.out}: transcribe them into different folders"
            )
    return {index: given.out / f"{name}.{given.format}" for index, name in names.items()}


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be made ({error.strerror}); name a folder that is writable"
        ) from error


def _write(transcript: Transcript, given: TranscribeArguments, index: int, target: Path) -> None:
    try:
        write_whole(target, _render(transcript, given, index))
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}); --out must be a writable folder with "
            "free space"
        ) from error


def _render(transcript: Transcript, given: TranscribeArguments, index: int) -> str:
    """The transcript in the format that the user chose."""
    file = printable(given.files[index])
    is_one_of_many = len(given.files) > 1 and given.out is None
    if given.format == "srt":
        return writers.write_srt(transcript)
    if given.format == "vtt":
        return writers.write_vtt(transcript)
    if given.format == "json":
        return writers.write_json(transcript, file, indent=None if is_one_of_many else 2)
    heading = f"{file}:\n" if is_one_of_many else ""
    return heading + writers.write_txt(transcript)
