"""One contender of infer.py: `fastwhisper evaluate` itself, in a process of its own.

    run by the benchmark as: ours_infer.py MODEL MANIFEST LIMIT BATCH

The time is the report's `wall_seconds`: reading, decoding and log-mel of the audio are in it,
loading the model and compiling are not.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

from fastwhisper_jax.arguments import EvaluateArguments
from fastwhisper_jax.commands import evaluate
from fastwhisper_jax.evaluation.reports import hypotheses_path


def main(model: str, manifest: str, limit: int, batch_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        report = evaluate.run(
            EvaluateArguments(model, data=manifest, report=path, batch_size=batch_size, limit=limit)
        )
        lines = hypotheses_path(path).read_text().splitlines()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    printed = {
        "texts": [json.loads(line)["hypothesis"] for line in lines],
        "audio_seconds": report.audio_seconds,
        "seconds": [report.wall_seconds],
        "compile_seconds": report.compile_seconds,
        "peak_bytes": peak,
    }
    print(json.dumps(printed))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]))
