"""shellcheck finds nothing in launch/, runs/ and .ci/run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = [LAUNCH.with_name(".ci") / "run", *sorted(LAUNCH.with_name("runs").glob("*.sh"))]


def test_shellcheck_finds_nothing():
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.is_file() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install '.[test]' brings it")
    # With --external-sources tpu.sh is checked together with the parts that it reads.
    command = [shellcheck, "--external-sources", "tpu.sh", "worker.sh", *SCRIPTS]
    checked = subprocess.run(command, cwd=LAUNCH, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_nothing_is_evaluated_and_every_script_stops_at_the_first_error():
    for path in (*LAUNCH.rglob("*.sh"), *SCRIPTS):
        text = path.read_text()
        assert not re.search(r"(?<![.\w])eval ", text), path
        if path.parent != LAUNCH / "lib":
            assert "\nset -euo pipefail\n" in text, path
