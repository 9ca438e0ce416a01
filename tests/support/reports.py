"""A report of an evaluation."""

from fastwhisper_jax.evaluation.evaluate import Report

REPORT = Report(
    wer=0.25,
    cer=0.1,
    substitutions=1,
    deletions=0,
    insertions=0,
    reference_words=4,
    loops=0,
    loop_errors=0,
    wer_without_loops=0.25,
    utterances=1,
    audio_seconds=3.0,
    wall_seconds=1.5,
    rtfx=2.0,
    parameters=10,
    normalizer="basic",
    model="m",
    data="d",
    load_seconds=0.5,
    compile_seconds=0.25,
)
