"""launch/ in a repository of its own, and a Cloud TPU of four workers in a folder."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

FAKES = Path(__file__).parent / "fakes"
LAUNCH = Path(__file__).parents[2] / "launch"
RECIPES = ("recipe.py", "recipe with spaces.py", "configs/askd_large_v3.py")


@dataclass(frozen=True)
class Cloud:
    """The folder that the fakes share, and the launcher that meets them."""

    folder: Path
    checkout: Path
    environment: dict[str, str]

    @property
    def commit(self) -> str:
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.checkout), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    def command(self, *arguments: str) -> list[str]:
        named = ["--project", "my-project", "--zone", "us-west4-a", "--name", "askd-16"]
        return [str(self.checkout / "launch/tpu.sh"), arguments[0], *named, *arguments[1:]]

    def tpu(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs launch/tpu.sh with project, zone and name given."""
        return self.execute(self.command(*arguments), **changes)

    def execute(self, command: Sequence[str], **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def refuse(self, when: str, code: int, **texts: str) -> None:
        """The next gcloud call that holds `when` ends with this code and these texts."""
        file = self.folder / "refusals"
        refusals = json.loads(file.read_text()) if file.exists() else []
        file.write_text(json.dumps([*refusals, {"when": when, "code": code, **texts}]))

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def kinds(self) -> list[str]:
        """What was asked of gcloud, two words a call, and what was asked of the workers."""
        return [_kind(call) for call in self.calls]

    @property
    def sleeps(self) -> list[str]:
        file = self.folder / "sleeps"
        return file.read_text().split() if file.exists() else []

    def home(self, worker: int) -> Path:
        return self.folder / "workers" / f"w-{worker}"

    def run_folder(self, worker: int, run: str = "askd") -> Path:
        return self.home(worker) / "fastwhisper/runs" / run

    def group(self, worker: int) -> int:
        """The process group of the worker's run."""
        return int((self.run_folder(worker) / "process").read_text().split()[0])

    @staticmethod
    def alive(process: int) -> bool:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    def logged(self, text: str) -> bool:
        """Whether the run's log holds a text on every worker where it was started."""
        logs = list(self.folder.glob("workers/*/fastwhisper/runs/askd/log"))
        return bool(logs) and all(text in log.read_text() for log in logs)

    def ended(self) -> bool:
        """Whether the run has ended, whole groups and all, on every worker where it was started."""
        folders = list(self.folder.glob("workers/*/fastwhisper/runs/askd"))
        codes = [(folder / "exit_code").exists() for folder in folders]
        groups = [int((folder / "process").read_text().split()[0]) for folder in folders]
        return bool(folders) and all(codes) and not any(self.alive(group) for group in groups)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.02)

    def seen(self, worker: int, run: str = "askd") -> dict[str, object]:
        """What the fake fastwhisper printed last on a worker."""
        lines = (self.run_folder(worker, run) / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")][-1]

    def ready(self, starts: str = "serve") -> None:
        """A slice that create made, with this checkout's commit on it."""
        self.write("starts", starts)
        assert self.tpu("create", "--accelerator-type", "v5litepod-16").returncode == 0
        synced = self.tpu("sync")
        assert synced.returncode == 0, synced.stderr
        (self.folder / "calls").unlink()


def _kind(call: list[str]) -> str:
    command = next((word for word in call if word.startswith("--command=")), None)
    if command is None:
        return " ".join(call[3:5])
    return f"worker {shlex.split(command)[2]}"


def _kill_runs(folder: Path) -> None:
    for process in folder.glob("workers/*/fastwhisper/runs/*/process"):
        group = int(process.read_text().split()[0])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    checkout = tmp_path / "checkout"
    shutil.copytree(LAUNCH, checkout / "launch")
    for recipe in RECIPES:
        (checkout / recipe).parent.mkdir(exist_ok=True)
        (checkout / recipe).write_text("config = None\n")
    folder = tmp_path / "cloud"
    folder.mkdir()
    path = f"{FAKES}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(tmp_path), "FAKE_CLOUD": str(folder), "LC_ALL": "C"}
    made = Cloud(folder, checkout, environment)
    made.git("init", "--quiet")
    made.git("add", ".")
    author = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.com")
    made.git(*author, "commit", "--quiet", "-m", "launch")
    yield made
    _kill_runs(folder)
