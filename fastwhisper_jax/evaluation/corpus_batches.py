"""Batches for evaluation, and the encoder in front of decoding."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.data.batching import BatchLayout, layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs, read_batches
from fastwhisper_jax.decoding.greedy import make_transcribe
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.evaluation.evaluate import EvaluationBatch
from fastwhisper_jax.models import whisper
from fastwhisper_jax.models.options import ModelOptions
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.training.input import local_rows
from fastwhisper_jax.training.sharding import put_batch


def evaluation_batches(
    corpus: Corpus,
    load_inputs: LoadInputs,
    mesh: Mesh,
    batch_size: int,
    threads: int = 2,
) -> Iterator[EvaluationBatch]:
    """Yields a corpus in its order; the last batch is filled up with empty rows.

    Args:
        corpus: with prompt and text of each utterance.
        load_inputs: the encoder's input, or its cached output.
        mesh: rows are divided over all of it.
        batch_size: a multiple of the mesh's devices.
        threads: of background decoding.
    """
    import grain  # noqa: F401  now: a second that the caller's clock would count as transcription

    longest = max(size.prompt_tokens + size.label_tokens for size in corpus.sizes)
    plans = layouts_in_order(corpus.sizes, batch_size, [longest])
    assemble = functools.partial(_assemble, corpus, load_inputs, mesh)
    return read_batches(plans, assemble, threads=threads)


def _assemble(
    corpus: Corpus, load_inputs: LoadInputs, mesh: Mesh, plan: BatchLayout
) -> EvaluationBatch:
    indices = [row[0] for row in plan.rows if row]
    mine = [plan.rows[row] for row in local_rows(mesh, len(plan.rows))]
    inputs = load_inputs([[corpus.utterances[i] for i in row] for row in mine], plan.target_length)
    inputs = {name: x for name, x in inputs.items() if name in ("audio", "encoder_states")}
    first = corpus.tokens[indices[0]].prompt
    prompts = [corpus.tokens[row[0]].prompt if row else first for row in mine]
    arrays = put_batch(inputs | {"prompt": np.array(prompts, np.int32)}, mesh)
    chosen = [corpus.utterances[i] for i in indices]
    return EvaluationBatch(
        prompt=arrays.pop("prompt"),
        inputs=arrays,
        ids=[utterance.id for utterance in chosen],
        references=[utterance.text or "" for utterance in chosen],
        durations_seconds=[utterance.duration or 0.0 for utterance in chosen],
    )


def transcriber(
    dims: ModelDimensions,
    options: ModelOptions,
    rules: DecodingRules,
    max_new_tokens: int,
    beams: int = 1,
) -> jax.stages.Wrapped:
    """Transcription from audio, or from cached encoder states, as one jitted function."""

    def encode(params: whisper.Params, inputs: dict[str, jax.Array]) -> jax.Array:
        if "encoder_states" in inputs:
            return inputs["encoder_states"]
        log_mel = log_mel_spectrogram(inputs["audio"], dims.n_mels)
        return whisper.encode(params, dims, log_mel[:, : dims.n_frames], options)

    return make_transcribe(encode, dims, options, rules, max_new_tokens, beams)


def default_normalizer(corpus: Corpus, task: str) -> str:
    """english where all texts are English, as translations always are; otherwise basic."""
    is_english = task == "translate" or all(u.language == "en" for u in corpus.utterances)
    return "english" if is_english else "basic"


def detokenizer(tokenizer: Any) -> Callable[[Any], str]:
    """Token ids to text, special tokens and timestamps left out."""
    return functools.partial(tokenizer.decode, skip_special_tokens=True)
