"""`fastwhisper` as one process of a run, for tests: python one_of_two.py SEEN HARM ARGUMENTS...

Writes to SEEN a JSON line a batch: the ids of the rows that this process reads. HARM is "fail" (the
third batch cannot be read), "die" (kill -9 of itself there) or "none".
"""

import json
import os
import signal
import sys

from fastwhisper_jax import cli
from fastwhisper_jax.errors import InputError
from fastwhisper_jax.training import feeding

BATCHES = 3


def main(seen, harm, *arguments):
    assemble = feeding.assemble_batch
    count = 0

    def assemble_and_note(plan, utterances, *rest, local_rows, **named):
        nonlocal count
        count += 1
        if count == BATCHES and harm == "fail":
            raise InputError("audio.wav cannot be read here; mend it")
        if count == BATCHES and harm == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        ids = [utterances[i].id for row in local_rows for i in plan.rows[row]]
        with open(seen, "a") as file:
            file.write(json.dumps(ids) + "\n")
        return assemble(plan, utterances, *rest, local_rows=local_rows, **named)

    feeding.assemble_batch = assemble_and_note
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
