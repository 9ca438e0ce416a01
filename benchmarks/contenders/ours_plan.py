"""One contender of plan.py: `fastwhisper plan` itself, in a process of its own.

    run by the benchmark as: ours_plan.py RECIPE TOPOLOGY BATCH TOKENS

Of a recipe with several phases the first is reported: the teacher alone, as in the peer.
"""

import json
import sys
import tempfile
from pathlib import Path

from fastwhisper_jax.cli import main as fastwhisper


def main(recipe: str, topology: str, batch_size: str, tokens: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        arguments = ["plan", recipe, "--topology", topology, "--batch-size", batch_size]
        arguments += ["--target-tokens", tokens, "--report", str(path), "--steps-only"]
        if fastwhisper(arguments) != 0:
            sys.exit("the plan failed")
        phase = json.loads(path.read_text())["phases"][0]
    print(json.dumps(phase | {"seconds": [phase["compile_seconds"]]}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
