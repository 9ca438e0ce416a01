"""Makes the teacher that the demo ships, by the project's own training.

    python -m fastwhisper_jax.demo.make_teacher WORK

Speech, an untrained model, `fastwhisper train` and `fastwhisper export`, all in the folder WORK;
what is to be shipped, in float16, is WORK/teacher. Given again it keeps what is complete of the
first two, and goes on with the training where it stopped.
"""

import argparse
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from fastwhisper_jax.commands import export, train
from fastwhisper_jax.config.recipe import load_recipe
from fastwhisper_jax.demo.corpus import TEACHER_VOICES, CorpusSpec, write_corpus
from fastwhisper_jax.demo.sentences import sentences
from fastwhisper_jax.demo.untrained import write_untrained
from fastwhisper_jax.progress import progress

RECIPE = Path(__file__).parent / "recipes" / "teacher.py"
# Other sentences than the demo's: its seeds are others.
CORPORA = (
    CorpusSpec("words", "words", TEACHER_VOICES, 3000, seed=100),
    CorpusSpec("train", "train", TEACHER_VOICES, 5000, seed=101),
    CorpusSpec("dev", "test", TEACHER_VOICES, 64, seed=102),
)
SHIPPED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def main(work: Path) -> None:
    """Makes the teacher in a folder."""
    speech, untrained = work / "speech", work / "untrained"
    _make(speech, _speak)
    texts = sentences("train", 5000, seed=101)
    _make(untrained, lambda folder: write_untrained(folder, texts, seed=0))
    config = load_recipe(RECIPE)
    config = dataclasses.replace(
        config,
        teacher=dataclasses.replace(config.teacher, path=str(untrained)),
        data=dataclasses.replace(
            config.data,
            train=(str(speech / "words.jsonl"), str(speech / "train.jsonl")),
            eval=(str(speech / "dev.jsonl"),),
        ),
    )
    train.run(config, work / "run", print)
    export.run(work / "run", work / "exported", None)
    write_teacher(work / "exported", work / "teacher")


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    """Makes a folder beside its place and renames it when it is whole; one that is there stays."""
    if folder.exists():
        return
    begun = folder.with_name(f"{folder.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    write(begun)
    begun.rename(folder)


def _speak(folder: Path) -> None:
    for plan in CORPORA:
        with progress(plan.utterances, plan.name, "utterances") as advance:
            write_corpus(plan, folder, advance)


def write_teacher(exported: Path, target: Path) -> None:
    """Copies what is shipped of an export, the weights in float16."""
    target.mkdir(exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(exported / name, target / name)
    tensors = load_file(exported / "model.safetensors")
    narrow = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    save_file(narrow, target / "model.safetensors", {"format": "pt"})
    (target / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the teacher that the demo ships.")
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for all that is made")
    main(parser.parse_args().work)
