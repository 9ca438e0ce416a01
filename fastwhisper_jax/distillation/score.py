"""Error rates of a student while it trains: its parameters transcribe the eval sets."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.distillation.eval_metrics import named_metrics
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import StudentSpec
from fastwhisper_jax.distillation.task import ScoreParams
from fastwhisper_jax.evaluation.corpus_batches import (
    default_normalizer,
    detokenizer,
    evaluation_batches,
    make_transcribe,
)
from fastwhisper_jax.evaluation.evaluate import Scoring, evaluate


def make_score_params(
    config: Config,
    student: StudentSpec,
    rules: DecodingRules,
    corpora: Mapping[str, Corpus],
    load_inputs: LoadInputs,
    tokenizer: Any,
    mesh: Mesh,
) -> ScoreParams:
    """Builds (parameters of a student) -> its error rates and loops on each eval set."""
    options = model_options(mesh, config.student.dtype)
    transcribe = make_transcribe(student.dims, options, rules, config.training.max_new_tokens)

    def score_set(corpus: Corpus, params: dict[str, Any]) -> dict[str, float]:
        report, _ = evaluate(
            transcribe,
            params,
            evaluation_batches(
                corpus,
                load_inputs,
                student.windows,
                mesh,
                config.training.eval_batch_size,
                config.data.threads,
            ),
            Scoring(
                detokenizer(tokenizer),
                rules.end_of_text,
                default_normalizer(corpus, config.data.task),
            ),
        )
        return {"eval_wer": report.wer, "eval_cer": report.cer, "eval_loops": report.loops}

    def score_params(params: dict[str, Any]) -> dict[str, float]:
        rows = (named_metrics(name, score_set(corpus, params)) for name, corpus in corpora.items())
        return {metric: rate for row in rows for metric, rate in row.items()}

    return score_params
