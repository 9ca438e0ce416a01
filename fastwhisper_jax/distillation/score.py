"""Error rates of a student while it trains: its parameters transcribe the eval set."""

from typing import Any

from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.pair import StudentSpec
from fastwhisper_jax.distillation.task import ScoreParams
from fastwhisper_jax.evaluation.corpus_batches import (
    default_normalizer,
    detokenizer,
    evaluation_batches,
    make_transcribe,
)
from fastwhisper_jax.evaluation.evaluate import evaluate


def make_score_params(
    config: Config,
    student: StudentSpec,
    rules: DecodingRules,
    corpus: Corpus,
    load_inputs: LoadInputs,
    tokenizer: Any,
    mesh: Mesh,
) -> ScoreParams:
    """Builds (parameters of a student) -> its word and character error rate on the eval set."""
    options = model_options(mesh, config.student.dtype)
    transcribe = make_transcribe(student.dims, options, rules, config.training.max_new_tokens)
    normalizer = default_normalizer(corpus, config.data.task)

    def score_params(params: dict[str, Any]) -> dict[str, float]:
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
            detokenizer(tokenizer),
            rules.end_of_text,
            normalizer,
        )
        return {"eval_wer": report.wer, "eval_cer": report.cer}

    return score_params
