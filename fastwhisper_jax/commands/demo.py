"""`fastwhisper demo`: speech, a teacher, two students, their export and a table, from nothing."""

import contextlib
import dataclasses
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from fastwhisper_jax.commands import evaluate, export, plot, train, transcribe
from fastwhisper_jax.commands.transcribe_arguments import Options as TranscribeOptions
from fastwhisper_jax.config import Config
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.demo import results
from fastwhisper_jax.demo.corpus import SEEN_VOICES, UNSEEN_VOICES, CorpusSpec, write_corpus
from fastwhisper_jax.demo.speech import start_synthesiser
from fastwhisper_jax.distillation.run_directory import check_writable
from fastwhisper_jax.errors import InputError, Interrupted, extra
from fastwhisper_jax.evaluation.evaluate import Report
from fastwhisper_jax.files import write_whole
from fastwhisper_jax.progress import progress

Say = Callable[[str], None]

PACKAGED = Path(__file__).parents[1] / "demo"
STAGES = 6
BATCH_SIZE = 8
NORMALIZER = "basic"  # words as they are spoken: "english" would join "four two" into 42


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much the demo does.

    Attributes:
        train: utterances to train the students on.
        test: utterances of each test set.
        steps: updates of each student; None for as many as the recipes say.
    """

    train: int = 3600
    test: int = 240
    steps: int | None = None


def run(out: Path, say: Say, budget: Budget | None = None) -> list[results.Result]:
    """Runs the demo; where it does not come to its end it leaves nothing behind.

    Args:
        out: an empty or new folder; gets all that is made.
        say: prints a line for the user.
        budget: how much to do.

    Returns:
        What the table shows: teacher, ASKD, cross-entropy only.

    Raises:
        InputError: the folder or this installation cannot be used.
        Interrupted: stopped by the user.
    """
    _check_installed()
    check_writable("--out", out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out} exists and is not empty; choose an empty or new folder")
    with _removed_unless_complete(out), _compiled_once(out / "cache" / "compiled"):
        return _run(out, say, budget or Budget())


def _check_installed() -> None:
    """Checks that what the extra `demo` brings is there, and that the synthesiser starts.

    Raises:
        InputError: it is not.
    """
    for module, package in (("espeakng_loader", "espeakng-loader"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"demo needs {package}, which is not installed; {extra('demo')}")
    start_synthesiser()


@contextlib.contextmanager
def _removed_unless_complete(out: Path) -> Iterator[None]:
    was_there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException as error:
        for path in out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not was_there:
            out.rmdir()
        if isinstance(error, KeyboardInterrupt | Interrupted):
            raise Interrupted(
                f"the demo has no end to show, and {out} is removed; the same command starts anew"
            ) from None
        raise


# What makes jax keep everything that it compiles in a folder.
_KEPT = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@contextlib.contextmanager
def _compiled_once(folder: Path) -> Iterator[None]:
    """Keeps what is compiled: each evaluation compiles the same again for models of one shape."""
    folder.mkdir(parents=True, mode=0o700)  # what lies there is executed
    settings = {"jax_compilation_cache_dir": str(folder), **_KEPT}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def _run(out: Path, say: Say, budget: Budget) -> list[results.Result]:
    start = time.perf_counter()
    number = 0

    def stage(what: str) -> None:
        nonlocal number
        number += 1
        say(f"\n[{number}/{STAGES}] {what}")

    stage(
        f"Speech: {budget.train + 2 * budget.test:,} sentences spoken by espeak-ng: nothing is "
        f"downloaded. {len(SEEN_VOICES)} voices to train on, as if they were your speakers. Two "
        "test sets of other sentences: one by the same voices, one by "
        f"{len(UNSEEN_VOICES)} that nobody trains on."
    )
    speech = _write_speech(out / "speech", budget)

    teacher = out / "teacher"
    shutil.copytree(PACKAGED / "teacher", teacher)
    shutil.copytree(
        PACKAGED / "recipes",
        out / "recipes",
        ignore=lambda _, names: {*names} - {"askd.py", "ce.py"},
    )
    stage(
        "The teacher: a small Whisper that comes with this package, trained by the same code on "
        "other voices (teacher/README.md). How well does it do on both test sets?"
    )
    found = [_result("teacher", teacher, out)]
    say(_in_words(found[-1]))

    stage(
        "ASKD: a student with the teacher's encoder and one of its decoder layers learns from the "
        "labels and from the teacher, whose weight falls, then from its own earlier self."
    )
    _train("askd", out, say, budget)
    stage(
        "The control: the same student, data, updates and seed, from the labels alone. What ASKD "
        "is worth is the difference."
    )
    _train("ce", out, say, budget)

    stage("Both become Hugging Face weights; what was exported is what is scored.")
    for name, title in (("askd", "ASKD"), ("ce", "CE only")):
        for line in export.run(out / "runs" / name, out / name, None):
            say(line)
        found.append(_result(title, out / name, out))
        say(_in_words(found[-1]))

    stage("What came out:")
    table = results.markdown_table(found)
    plot.run([out / "runs" / "askd", out / "runs" / "ce"], out / "plot.png")
    seconds = time.perf_counter() - start
    _write_report(out, found, table, seconds)
    say(f"\n{table}\n")
    _transcribe_one(out, speech["test-unseen"], say)
    shutil.rmtree(out / "cache")
    say(_farewell(out, seconds))
    return found


def _write_speech(folder: Path, budget: Budget) -> dict[str, Path]:
    """The manifests by name."""
    plans = (
        CorpusSpec("train", "train", SEEN_VOICES, budget.train, seed=1),
        CorpusSpec("test-seen", "test", SEEN_VOICES, budget.test, seed=2),
        CorpusSpec("test-unseen", "test", UNSEEN_VOICES, budget.test, seed=3),
    )
    with progress(sum(plan.utterances for plan in plans), "speak", "utterances") as advance:
        return {plan.name: write_corpus(plan, folder, advance) for plan in plans}


def _result(title: str, model: Path, out: Path) -> results.Result:
    return results.Result(title, _score(model, "seen", out), _score(model, "unseen", out))


def _score(model: Path, voices: str, out: Path) -> Report:
    """One evaluation, as `fastwhisper evaluate` does it."""
    return evaluate.run(
        evaluate.Options(
            model=str(model),
            data=str(out / "speech" / f"test-{voices}.jsonl"),
            report=out / "reports" / f"{model.name}-{voices}.json",
            batch_size=BATCH_SIZE,
            max_new_tokens=60,
            normalizer=NORMALIZER,
        )
    )


def _in_words(result: results.Result) -> str:
    return (
        f"{result.name}: WER {result.seen.wer:.1%} on seen voices, {result.unseen.wer:.1%} on "
        f"unseen ones, {result.rtfx:.0f} x real time"
    )


def _train(name: str, out: Path, say: Say, budget: Budget) -> None:
    config = load_recipe(out / "recipes" / f"{name}.py")
    train.run(_placed(config, out, budget), out / "runs" / name, say)


def _placed(config: Config, out: Path, budget: Budget) -> Config:
    """A recipe with the demo's own folders."""
    data = dataclasses.replace(
        config.data,
        train=(str(out / "speech" / "train.jsonl"),),
        encoder_cache=str(out / "cache"),
    )
    training = config.training
    if budget.steps is not None:
        training = dataclasses.replace(training, steps=budget.steps)
    teacher = dataclasses.replace(config.teacher, path=str(out / "teacher"))
    return dataclasses.replace(config, teacher=teacher, data=data, training=training)


def _write_report(out: Path, found: list[results.Result], table: str, seconds: float) -> None:
    content = {
        "seconds": seconds,
        "batch_size": BATCH_SIZE,
        "normalizer": NORMALIZER,
        "models": results.as_json(found),
    }
    write_whole(out / "report.json", json.dumps(content, indent=2) + "\n")
    write_whole(
        out / "report.md",
        f"# What the demo found\n\n{table}\n\nGreedy decoding, {BATCH_SIZE} utterances at a time, "
        f"float32, weights as exported, {NORMALIZER} normaliser. ASKD and CE only: the same "
        "student, data, updates and seed.\n\n![Losses and weights over the steps](plot.png)\n",
    )


def _transcribe_one(out: Path, manifest: Path, say: Say) -> None:
    line = json.loads(manifest.read_text(encoding="utf-8").splitlines()[0])
    audio = manifest.parent / line["audio"]
    say(f"fastwhisper transcribe {out / 'askd'} {audio}")
    options = TranscribeOptions(model=str(out / "askd"), files=(str(audio),))
    transcribe.run(options, lambda text: say(f"  student:   {text.strip()}"))
    say(f"  reference: {line['text']}  (voice {line['voice']}, not trained on)")


def _farewell(out: Path, seconds: float) -> str:
    return f"""
done in {seconds / 60:.1f} minutes; {out} holds report.json, report.md, plot.png, the students askd/
and ce/ (Hugging Face weights), their runs and recipes, and the speech. Your own recordings next, in
the folder of this project (docs/own-audio.md):

  fastwhisper train configs/askd_base_en.py --run-dir runs/mine \\
      --teacher.path openai/whisper-base --data.train my-speech.jsonl --data.eval my-test.jsonl
  fastwhisper export runs/mine --out my-student
  fastwhisper evaluate my-student --data my-test.jsonl
"""
