"""`fastwhisper` as one process of a run, for tests: python one_of_two.py SEEN HARM ARGUMENTS...

Writes to SEEN a JSON line a batch: the ids of the rows that this process reads. HARM is "fail" (a
batch cannot be read), "die" (kill -9 of itself there), "differ" (a weight of the models is another
one) or "none". What died is missed soon.
"""

import functools
import json
import os
import signal
import sys

import jax

from fastwhisper_jax import cli
from fastwhisper_jax.distillation import pair as models
from fastwhisper_jax.distillation import task as tasks
from fastwhisper_jax.errors import InputError

HARMED_BATCH = 12  # far enough for the first updates to be under way


def main(seen, harm, *arguments):
    collate = tasks.collate
    count = 0

    def collate_and_note(layout, corpus, *rest, local_rows, **named):
        nonlocal count
        count += 1
        if count == HARMED_BATCH and harm == "fail":
            raise InputError("audio.wav cannot be read here; mend it")
        if count == HARMED_BATCH and harm == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        ids = [corpus.utterances[i].id for row in local_rows for i in layout.rows[row]]
        with open(seen, "a") as file:
            file.write(json.dumps(ids) + "\n")
        return collate(layout, corpus, *rest, local_rows=local_rows, **named)

    def load_another(folder):
        model = load(folder)
        model.params["decoder"]["norm"]["bias"][0] += 1e-3
        return model

    load = models.load_model
    if harm == "differ":
        models.load_model = load_another
    tasks.collate = collate_and_note
    jax.distributed.initialize = functools.partial(
        jax.distributed.initialize, heartbeat_timeout_seconds=10
    )
    return cli.main(arguments)


def keep_what_python_prints():
    sys.stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    keep_what_python_prints()
    sys.exit(main(*sys.argv[1:]))
