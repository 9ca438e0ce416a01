"""Makes what the demo's teacher is trained on: speech, and an untrained model.

    python -m fastwhisper_jax.demo.teacher_inputs WORK

`runs/demo_teacher.sh` runs this, and then trains and exports the teacher. Run again, it makes only
what is missing.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

from fastwhisper_jax.demo.corpus import TEACHER_VOICES, CorpusSpec, write_corpus
from fastwhisper_jax.demo.sentences import sentences
from fastwhisper_jax.demo.untrained import write_untrained
from fastwhisper_jax.progress import progress

# The seeds differ from the demo's, so the sentences do too.
CORPORA = (
    CorpusSpec("words", "words", TEACHER_VOICES, 3000, seed=100),
    CorpusSpec("train", "train", TEACHER_VOICES, 5000, seed=101),
    CorpusSpec("dev", "test", TEACHER_VOICES, 64, seed=102),
)


def main(work: Path) -> None:
    """Makes the folders WORK/speech and WORK/untrained."""
    _make_once(work / "speech", _speak)
    texts = sentences("train", 5000, seed=101)
    _make_once(work / "untrained", lambda folder: write_untrained(folder, texts, seed=0))


def _make_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Writes a folder under a temporary name and renames it, unless the folder exists."""
    if folder.exists():
        return
    begun = folder.with_name(f"{folder.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    write(begun)
    begun.rename(folder)


def _speak(folder: Path) -> None:
    for spec in CORPORA:
        with progress(spec.utterances, spec.name, "utterances") as advance:
            write_corpus(spec, folder, advance)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes what the demo's teacher is trained on.")
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for speech and model")
    main(parser.parse_args().work)
