"""`fastwhisper demo`: makes speech, trains and exports two students, and compares them."""

import contextlib
import dataclasses
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fastwhisper_jax.arguments import EvaluateArguments, ExportArguments, TranscribeArguments
from fastwhisper_jax.commands import evaluate, export, plot, train, transcribe
from fastwhisper_jax.config import Config
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.demo.compilation_cache import compilation_cache_in
from fastwhisper_jax.demo.corpus import SEEN_VOICES, UNSEEN_VOICES, CorpusSpec, write_corpus
from fastwhisper_jax.demo.results import Result, markdown_table, write_reports
from fastwhisper_jax.demo.speech import start_synthesiser
from fastwhisper_jax.distillation.run_directory import check_writable
from fastwhisper_jax.errors import InputError, Interrupted, extra
from fastwhisper_jax.evaluation.evaluate import Report
from fastwhisper_jax.progress import progress

Log = Callable[[str], None]

PACKAGED = Path(__file__).parents[1] / "demo"
STAGES = 6
BATCH_SIZE = 8
NORMALIZER: Final = "basic"  # "english" would join the spoken words "four two" into 42


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much the demo does.

    Attributes:
        train: utterances that the students are trained on.
        test: utterances of each test set.
        steps: updates of each student; None for the number in the recipes.
    """

    train: int = 3600
    test: int = 240
    steps: int | None = None


def run(out: Path, log: Log, budget: Budget | None = None) -> list[Result]:
    """Runs the demo. If it does not finish, it removes what it wrote.

    Args:
        out: an empty or new folder for everything that the demo makes.
        log: prints a line for the user.
        budget: how much to do.

    Returns:
        The rows of the table: teacher, ASKD, cross-entropy only.

    Raises:
        InputError: the folder or this installation cannot be used.
        Interrupted: the user stopped the demo.
    """
    _check_installed()
    check_writable("--out", out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out} exists and is not empty; choose an empty or new folder")
    # Every evaluation compiles the same programs for models of one shape.
    with _removed_unless_complete(out), compilation_cache_in(out / "cache" / "compiled"):
        return _run(out, log, budget or Budget())


def _check_installed() -> None:
    """Checks that the packages of the extra `demo` are installed and the synthesiser starts.

    Raises:
        InputError: one of them is missing, or the synthesiser does not start.
    """
    for module, package in (("espeakng_loader", "espeakng-loader"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"demo needs {package}, which is not installed; {extra('demo')}")
    start_synthesiser()


@contextlib.contextmanager
def _removed_unless_complete(out: Path) -> Iterator[None]:
    """Makes a folder, and empties or removes it if the block fails."""
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
                f"the demo was not finished, and {out} is removed; the same command starts again"
            ) from None
        raise


def _run(out: Path, log: Log, budget: Budget) -> list[Result]:
    start = time.perf_counter()
    _announce(
        log,
        1,
        f"Speech: espeak-ng speaks {budget.train + 2 * budget.test:,} sentences, and nothing "
        f"is downloaded. {len(SEEN_VOICES)} voices to train on play the part of your speakers. "
        "There are two test sets of other sentences: one by the same voices, one by "
        f"{len(UNSEEN_VOICES)} voices that no model is trained on.",
    )
    speech = _write_speech(out / "speech", budget)
    teacher = out / "teacher"
    shutil.copytree(PACKAGED / "teacher", teacher)
    (out / "recipes").mkdir()
    for name in ("askd", "ce"):
        shutil.copy(PACKAGED / "recipes" / f"{name}.py", out / "recipes")
    _announce(
        log,
        2,
        "The teacher: a small Whisper that comes with this package. The same code trained it "
        "on other voices (teacher/README.md). How well does it do on both test sets?",
    )
    results = [_evaluate("teacher", teacher, out, log)]
    _announce(
        log,
        3,
        "ASKD: a student has the teacher's encoder and one of its decoder layers. It learns "
        "from the labels and the teacher, whose weight falls, and later from a self teacher.",
    )
    _train("askd", out, log, budget)
    _announce(
        log,
        4,
        "The control: the same student, data, updates and seed, but only the labels to learn "
        "from. The difference between the two students is what ASKD is worth.",
    )
    _train("ce", out, log, budget)
    _announce(
        log, 5, "Export: both become Hugging Face weights, and the exported weights are scored."
    )
    for name, title in (("askd", "ASKD"), ("ce", "CE only")):
        for line in export.run(ExportArguments(str(out / "runs" / name), out=out / name)):
            log(line)
        results.append(_evaluate(title, out / name, out, log))
    _announce(log, 6, "The results:")
    plot.run([out / "runs" / "askd", out / "runs" / "ce"], out / "plot.png")
    seconds = time.perf_counter() - start
    write_reports(out, results, seconds, BATCH_SIZE, NORMALIZER)
    log(f"\n{markdown_table(results)}\n")
    _transcribe_one(out, speech["test-unseen"], log)
    shutil.rmtree(out / "cache")
    log(_farewell(out, seconds))
    return results


def _announce(log: Log, number: int, text: str) -> None:
    log(f"\n[{number}/{STAGES}] {text}")


def _write_speech(folder: Path, budget: Budget) -> dict[str, Path]:
    """Writes the recordings; returns the manifests by name."""
    corpora = (
        CorpusSpec("train", "train", SEEN_VOICES, budget.train, seed=1),
        CorpusSpec("test-seen", "test", SEEN_VOICES, budget.test, seed=2),
        CorpusSpec("test-unseen", "test", UNSEEN_VOICES, budget.test, seed=3),
    )
    with progress(sum(spec.utterances for spec in corpora), "speak", "utterances") as advance:
        return {spec.name: write_corpus(spec, folder, advance) for spec in corpora}


def _evaluate(title: str, model: Path, out: Path, log: Log) -> Result:
    result = Result(title, _score(model, "seen", out), _score(model, "unseen", out))
    log(str(result))
    return result


def _score(model: Path, voices: str, out: Path) -> Report:
    """Evaluates a model on one test set, as `fastwhisper evaluate` does."""
    return evaluate.run(
        EvaluateArguments(
            str(model),
            data=str(out / "speech" / f"test-{voices}.jsonl"),
            report=out / "reports" / f"{model.name}-{voices}.json",
            batch_size=BATCH_SIZE,
            max_new_tokens=60,
            normalizer=NORMALIZER,
        )
    )


def _train(name: str, out: Path, log: Log, budget: Budget) -> None:
    config = load_recipe(out / "recipes" / f"{name}.py")
    train.run(_in_folder(config, out, budget), out / "runs" / name, log)


def _in_folder(config: Config, out: Path, budget: Budget) -> Config:
    """A recipe that reads teacher and data from the demo's folder."""
    data = dataclasses.replace(
        config.data,
        train=(str(out / "speech" / "train.jsonl"),),
        cache=str(out / "cache"),
    )
    training = config.training
    if budget.steps is not None:
        training = dataclasses.replace(training, steps=budget.steps)
    teacher = dataclasses.replace(config.teacher, path=str(out / "teacher"))
    return dataclasses.replace(config, teacher=teacher, data=data, training=training)


def _transcribe_one(out: Path, manifest: Path, log: Log) -> None:
    """Shows the student's transcript of one recording beside its text."""
    line = json.loads(manifest.read_text(encoding="utf-8").splitlines()[0])
    audio = manifest.parent / line["audio"]
    log(f"fastwhisper transcribe {out / 'askd'} {audio}")
    given = TranscribeArguments(str(out / "askd"), (str(audio),))
    transcribe.run(given, lambda text: log(f"  student:   {text.strip()}"))
    log(f"  reference: {line['text']}  (voice {line['voice']}, not trained on)")


def _farewell(out: Path, seconds: float) -> str:
    return f"""
done in {seconds / 60:.1f} minutes; {out} holds report.json, report.md, plot.png, the students askd/
and ce/ (Hugging Face weights), their runs and recipes, and the speech. To train on recordings of
your own, go on in the folder of this project (docs/own-audio.md):

  fastwhisper train configs/askd_base_en.py --run-dir runs/mine \\
      --teacher.path openai/whisper-base --data.train my-speech.jsonl --data.eval my-test.jsonl
  fastwhisper export runs/mine --out my-student
  fastwhisper evaluate my-student --data my-test.jsonl
"""
