"""From a batch layout to the decoder's arrays: prompts, labels, and the mask of the targets."""

import itertools
from collections.abc import Sequence

import numpy as np

from fastwhisper_jax.data.batching import BatchLayout, UtteranceSize, row_tokens
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import HostBatch, LoadInputs
from fastwhisper_jax.models.whisper.timestamp_labels import timestamped, timestamped_length
from fastwhisper_jax.models.whisper.tokens import decoder_arrays


def whisper_row_tokens(row: Sequence[UtteranceSize], is_timestamped: bool) -> int:
    """How many tokens prompt and label of a row of joined utterances take."""
    if not is_timestamped:
        return row_tokens(row, is_timestamped)
    return timestamped_length(row[0].prompt_tokens, [size.label_tokens for size in row])


def collate(
    layout: BatchLayout,
    corpus: Corpus,
    load_inputs: LoadInputs,
    *,
    end_of_text: int,
    local_rows: Sequence[int] | None = None,
) -> HostBatch:
    """Makes the arrays of a batch, or one process's share of them.

    Args:
        layout: the utterances of each row of the global batch.
        corpus: the utterances that the layout's indices name.
        load_inputs: makes the encoder's input from rows of utterances (empty rows included) and the
            layout, such as `data.loader.audio_inputs`. Its arrays join the batch.
        end_of_text: id of the padding token.
        local_rows: which rows of the global batch are wanted; None for all.

    Returns:
        What `load_inputs` returned, "input_ids" and "labels" (b, T) int32, and "label_mask" (b, T)
        float32, which is all zero in empty rows.
    """
    rows = layout.rows if local_rows is None else [layout.rows[row] for row in local_rows]
    shape = (len(rows), layout.target_length)
    input_ids = np.full(shape, end_of_text, np.int32)
    labels = np.full(shape, end_of_text, np.int32)
    label_mask = np.zeros(shape, np.float32)
    for index, row in enumerate(rows):
        if row:
            prompt, label = _prompt_and_label(row, corpus, row[0] in layout.timestamped)
            input_ids[index], labels[index], label_mask[index] = decoder_arrays(
                prompt, label, layout.target_length, end_of_text
            )
    utterances = [[corpus.utterances[i] for i in row] for row in rows]
    inputs = load_inputs(utterances, layout)
    return {**inputs, "input_ids": input_ids, "labels": labels, "label_mask": label_mask}


def _prompt_and_label(
    row: Sequence[int], corpus: Corpus, is_timestamped: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    prompt = corpus.tokens[row[0]].prompt
    labels = [corpus.tokens[i].label for i in row]
    if not is_timestamped:
        return prompt, tuple(itertools.chain.from_iterable(labels))
    return timestamped(prompt, labels, [corpus.utterances[i].duration or 0.0 for i in row])
