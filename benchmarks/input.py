"""Compares the speed of the input pipeline with what a train step consumes.

    python benchmarks/input.py ~/whisper-base train.jsonl

One run answers two questions. First, how many seconds of audio a second does a run's pipeline
deliver (decoding and resampling in threads, log-mel on the device, batches of 8), and how many does
training consume (the encoder frozen and not cached, two decoder layers)? Second, does a step that
is slower than the pipeline ever wait for its batch? That step is a pause of twice the pipeline's
own time per batch.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import jax
from ours_step import make_consumer, recipe
from side_by_side import machine, table

from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.collate import collate
from fastwhisper_jax.distillation.corpus import read_corpus
from fastwhisper_jax.distillation.featurise import make_featurise
from fastwhisper_jax.distillation.run import make_batch_schedule
from fastwhisper_jax.export.hf_load import load_model, resolve_model
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.training.input import device_batches
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.training.task import Batch


def timed(batches: Iterator[Batch], consume: Callable[[Batch], object]) -> tuple[list, list]:
    """The seconds that each batch was waited for, and the seconds that it was worked on."""
    waits, works = [], []
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return waits, works
        jax.block_until_ready(batch)
        reached = time.perf_counter()
        consume(batch)
        waits.append(reached - start)
        works.append(time.perf_counter() - reached)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder with Whisper in Hugging Face layout")
    parser.add_argument("manifest")
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    config, mesh = recipe(options.model, "frozen", batch_size=8), make_mesh(-1, 1)
    teacher = load_model(resolve_model(options.model))
    dims = teacher.dims
    corpus = read_corpus(
        [options.manifest],
        load_tokenizer(teacher.folder),
        language="en",
        task="transcribe",
        buckets=config.data.target_buckets,
        context_seconds=dims.context_seconds,
    )
    schedule = make_batch_schedule(config, corpus, teacher.windows)
    count = max(options.batches, options.steps + 1)
    layouts = [schedule[step % len(schedule)] for step in range(count)]
    make_batch = functools.partial(
        collate,
        corpus=corpus,
        load_inputs=audio_inputs,
        end_of_text=decoding_rules(teacher.generation_config).end_of_text,
    )
    feed = functools.partial(
        device_batches,
        collate=lambda layout, local_rows: make_batch(layout, local_rows=local_rows),
        featurise=make_featurise(dims.n_mels, config.data, 0, augments=True),
        mesh=mesh,
        threads=config.data.threads,
    )

    def audio_seconds(layout: BatchLayout) -> float:
        return sum(corpus.sizes[i].seconds for row in layout.rows for i in row)

    timed(feed(layouts[:3]), lambda batch: None)  # compiles the log-mel
    start = time.perf_counter()
    timed(feed(layouts), lambda batch: None)
    pipeline_seconds = time.perf_counter() - start
    mean_audio = sum(map(audio_seconds, layouts)) / count
    delivered = mean_audio * count / pipeline_seconds
    pause = 2 * pipeline_seconds / count
    waits, _ = timed(feed(layouts), lambda batch: time.sleep(pause))
    later = waits[2:]  # the first batches find an empty pipeline
    _, works = timed(feed(layouts[: options.steps + 1]), make_consumer(config, mesh))
    consumed = mean_audio / statistics.median(works[1:])
    print(f"\n{options.manifest}, batch 8, {count} batches, {machine()}\n")
    rows = [
        ["pipeline delivers, audio seconds a second", f"{delivered:.0f}"],
        ["train step consumes, audio seconds a second", f"{consumed:.1f}"],
        ["ratio", f"{delivered / consumed:.0f}"],
        [f"longest wait beside a step of {pause:.3f} s, ms", f"{max(later) * 1e3:.1f}"],
        ["share of the time spent waiting", f"{sum(later) / (len(later) * pause):.2%}"],
    ]
    print(table(["", ""], rows))


if __name__ == "__main__":
    main()
