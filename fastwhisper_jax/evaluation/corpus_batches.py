"""Batches of a corpus for evaluation, and the function that transcribes them."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastwhisper_jax.audio.log_mel import log_mel_spectrogram
from fastwhisper_jax.audio.windows import Windows
from fastwhisper_jax.data.batching import BatchLayout, layouts_in_order
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs, read_batches
from fastwhisper_jax.decoding.beam import beam_search
from fastwhisper_jax.decoding.greedy import greedy_decode
from fastwhisper_jax.decoding.prefill import WhisperModel, prefill, prompts_of_one_length
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
    windows: Windows,
    mesh: Mesh,
    batch_size: int,
    threads: int = 2,
) -> Iterator[EvaluationBatch]:
    """Yields batches of a corpus, the longest utterances first.

    A batch is decoded until its last text ends. Utterances of about one length, whose texts take
    about as many steps, share a batch, and so do those of one window. Empty rows fill the last
    batch of each window.

    Args:
        corpus: utterances, with the prompt and text of each.
        load_inputs: reads the encoder's input, or its cached output.
        windows: the model's windows; an utterance is heard in the shortest that holds it.
        mesh: the rows of a batch are divided over all its devices.
        batch_size: a multiple of the number of devices.
        threads: how many threads read audio in the background.
    """
    # Imported before the caller's clock starts: its second would count as transcription.
    import grain  # noqa: F401

    order = sorted(range(len(corpus.sizes)), key=lambda index: -corpus.sizes[index].seconds)
    ordered = corpus.select(order)
    most_tokens = max(size.prompt_tokens + size.label_tokens for size in ordered.sizes)
    layouts = layouts_in_order(ordered.sizes, batch_size, [most_tokens], windows)
    assemble = functools.partial(_assemble, ordered, order, load_inputs, mesh)
    return read_batches(layouts, assemble, threads=threads)


def _assemble(
    corpus: Corpus,
    numbers: Sequence[int],
    load_inputs: LoadInputs,
    mesh: Mesh,
    layout: BatchLayout,
) -> EvaluationBatch:
    """Makes the batch of a layout. `numbers` says where each utterance was before sorting."""
    indices = [row[0] for row in layout.rows if row]
    own_rows = [layout.rows[row] for row in local_rows(mesh, len(layout.rows))]
    utterances = [[corpus.utterances[i] for i in row] for row in own_rows]
    inputs = load_inputs(utterances, layout)
    inputs = {name: x for name, x in inputs.items() if name in ("audio", "encoder_states")}
    first = corpus.tokens[indices[0]].prompt
    prompts = [corpus.tokens[row[0]].prompt if row else first for row in own_rows]
    arrays = put_batch(inputs | {"prompt": np.array(prompts, np.int32)}, mesh)
    chosen = [corpus.utterances[i] for i in indices]
    return EvaluationBatch(
        prompt=arrays.pop("prompt"),
        inputs=arrays,
        indices=[numbers[i] for i in indices],
        ids=[utterance.id for utterance in chosen],
        references=[utterance.text or "" for utterance in chosen],
        durations_seconds=[utterance.duration or 0.0 for utterance in chosen],
    )


def make_transcribe(
    dims: ModelDimensions,
    options: ModelOptions,
    rules: DecodingRules,
    max_new_tokens: int,
    beams: int = 1,
) -> jax.stages.Wrapped:
    """Joins encoder and decoding to one jitted function.

    Make it once and keep it. It compiles once per shape of its arguments, so later evaluations
    compile nothing.

    Args:
        dims: sizes of the model.
        options: how to compute.
        rules: what may be emitted.
        max_new_tokens: the most tokens to emit in a row.
        beams: 1 decodes greedily; with more, a beam search keeps as many hypotheses.

    Returns:
        (params, inputs, prompt (B, P), row_mask (B,)) -> tokens (B, T) int32, under `jax.jit`.
        Inputs hold `audio` (B, A), or the `encoder_states` (B, S, D) that are then not computed.
        A row ends with end_of_text, which also fills the rest of it.
    """

    def encode(params: whisper.Params, inputs: dict[str, jax.Array]) -> jax.Array:
        if "encoder_states" in inputs:
            return inputs["encoder_states"]
        log_mel = log_mel_spectrogram(inputs["audio"], dims.n_mels)
        return whisper.encode(params, dims, log_mel, options)

    @jax.jit
    def transcribe(
        params: whisper.Params, inputs: dict[str, jax.Array], prompt: jax.Array, row_mask: jax.Array
    ) -> jax.Array:
        model = WhisperModel(params, dims, options)
        prompts = prompts_of_one_length(prompt, row_mask)
        start = prefill(model, encode(params, inputs), prompts, max_new_tokens, beams)
        hypotheses = greedy_decode(start, rules) if beams == 1 else beam_search(start, rules)
        return hypotheses.tokens[:, 0]

    return transcribe


def default_normalizer(corpus: Corpus, task: str) -> str:
    """Returns "english" if all texts are English, as translations always are; otherwise "basic"."""
    is_english = task == "translate" or all(u.language == "en" for u in corpus.utterances)
    return "english" if is_english else "basic"


def detokenizer(tokenizer: Any) -> Callable[[Any], str]:
    """A function from token ids to text, which leaves out special tokens and timestamps."""
    return functools.partial(tokenizer.decode, skip_special_tokens=True)
