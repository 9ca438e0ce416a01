"""How fast speech reaches the train step: the input pipeline alone, and what a step consumes.

    python benchmarks/input.py ~/whisper-base train.jsonl

Two questions, answered in one run. How many seconds of audio a second does the pipeline of a run
deliver (decoding and resampling in threads, log-mel on the device, batches of 8), against what
training consumes of it (the encoder frozen and not cached; two decoder layers)? And does a step
that is slower than the pipeline ever wait for its batch? There the step is a pause of twice the
pipeline's own time a batch.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import jax
from contenders.ours_step import make_consumer, recipe
from contenders.processes import machine, table

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.batching import BatchLayout
from fastwhisper_jax.data.corpus import Corpus, read_corpus
from fastwhisper_jax.data.loader import audio_inputs
from fastwhisper_jax.decoding.rules import decoding_rules
from fastwhisper_jax.distillation.assembly import make_batch_schedule
from fastwhisper_jax.distillation.pair import load_pair
from fastwhisper_jax.models.whisper.tokens import load_tokenizer
from fastwhisper_jax.training.input import device_batches, make_featurise
from fastwhisper_jax.training.sharding import make_mesh
from fastwhisper_jax.training.step import Batch


def timed(batches: Iterator[Batch], consume: Callable[[Batch], object]) -> tuple[list, list]:
    """Seconds waited for each batch, and seconds spent on it."""
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
    config = recipe(options.model, "frozen", batch_size=8)
    pair = load_pair(config)
    mesh = make_mesh(-1, 1)
    tokenizer = load_tokenizer(pair.teacher.folder)
    dims = pair.teacher.dims
    corpus = read_corpus(
        [options.manifest],
        tokenizer,
        language="en",
        task="transcribe",
        buckets=config.data.target_buckets,
        context_seconds=dims.context_seconds,
    )
    batch_size = config.training.global_batch_size
    plans = make_plans(
        config, corpus, dims.context_seconds, max(options.batches, options.steps + 1)
    )
    feed = functools.partial(
        device_batches,
        corpus=corpus,
        load_inputs=functools.partial(audio_inputs, samples=dims.n_samples),
        featurise=make_featurise(dims.n_mels, config.data, 0, augments=True),
        mesh=mesh,
        end_of_text=decoding_rules(pair.teacher.generation_config).end_of_text,
        threads=config.data.threads,
    )

    def audio_seconds(plan: BatchLayout) -> float:
        return sum(corpus.sizes[i].seconds for row in plan.rows for i in row)

    timed(feed(plans[:3]), lambda batch: None)  # compiles the log-mel
    start = time.perf_counter()
    timed(feed(plans), lambda batch: None)
    pipeline_seconds = time.perf_counter() - start
    delivered = sum(map(audio_seconds, plans)) / pipeline_seconds
    pause = 2 * pipeline_seconds / len(plans)
    waits, _ = timed(feed(plans), lambda batch: time.sleep(pause))
    later = waits[2:]  # the first ones find an empty pipeline
    _, works = timed(feed(plans[: options.steps + 1]), make_consumer(config, mesh))
    step_seconds = statistics.median(works[1:])
    mean_audio = sum(map(audio_seconds, plans)) / len(plans)
    consumed = mean_audio / step_seconds
    print(f"\n{options.manifest}, batch {batch_size}, {len(plans)} batches, {machine()}\n")
    rows = [
        ["pipeline delivers, audio seconds a second", f"{delivered:.0f}"],
        ["train step consumes, audio seconds a second", f"{consumed:.1f}"],
        ["ratio", f"{delivered / consumed:.0f}"],
        [f"longest wait beside a step of {pause:.3f} s, ms", f"{max(later) * 1e3:.1f}"],
        ["share of the time spent waiting", f"{sum(later) / (len(later) * pause):.2%}"],
    ]
    print(table(["", ""], rows))


def make_plans(
    config: Config, corpus: Corpus, context_seconds: float, count: int
) -> list[BatchLayout]:
    """The first `count` batches of a run."""
    schedule = make_batch_schedule(config, corpus, context_seconds)
    return [schedule[step % len(schedule)] for step in range(count)]


if __name__ == "__main__":
    main()
