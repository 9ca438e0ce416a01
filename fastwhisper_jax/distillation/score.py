"""Error rates of a student while it trains: its parameters transcribe the eval set."""

from typing import Any

from jax.sharding import Mesh

from fastwhisper_jax.config import Config
from fastwhisper_jax.data.corpus import Corpus
from fastwhisper_jax.data.loader import LoadInputs
from fastwhisper_jax.decoding.rules import DecodingRules
from fastwhisper_jax.distillation.model_options import model_options
from fastwhisper_jax.distillation.task import ScoreParams
from fastwhisper_jax.evaluation.corpus_batches import (
    default_normalizer,
    detokenizer,
    evaluation_batches,
    make_transcribe,
)
from fastwhisper_jax.evaluation.evaluate import Scoring, evaluate
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


def make_score_params(
    config: Config,
    dims: ModelDimensions,
    rules: DecodingRules,
    corpus: Corpus,
    load_inputs: LoadInputs,
    tokenizer: Any,
    mesh: Mesh,
) -> ScoreParams:
    """Builds (parameters of a student) -> its error rates and loops on the eval set."""
    options = model_options(mesh, config.student.dtype)
    transcribe = make_transcribe(dims, options, rules, config.training.max_new_tokens)
    normalizer = default_normalizer(corpus, config.data.task)
    scoring = Scoring(detokenizer(tokenizer), rules.end_of_text, normalizer)

    def score_params(params: dict[str, Any]) -> dict[str, float]:
        report, _ = evaluate(
            transcribe,
            params,
            evaluation_batches(
                corpus, load_inputs, mesh, config.training.eval_batch_size, config.data.threads
            ),
            scoring,
        )
        return {"eval_wer": report.wer, "eval_cer": report.cer, "eval_loops": report.loops}

    return score_params
