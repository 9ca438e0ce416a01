"""How a contender reports: one line of JSON, the last on its standard output."""

import json
import resource


def print_times(seconds: list[float]) -> None:
    """Prints the times of steps; the first one, which warms up or compiles, apart.

    Args:
        seconds: of every step, the first included.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    first, *rest = seconds
    print(json.dumps({"first_seconds": first, "seconds": rest, "peak_bytes": peak}))
