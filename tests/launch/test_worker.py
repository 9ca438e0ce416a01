"""worker.sh on this machine: real process groups, started, seen and stopped."""

import os
import signal
import subprocess
import sys

import pytest


class Worker:
    """Calls worker.sh as worker 0."""

    def __init__(self, cloud):
        self.cloud = cloud

    def __call__(self, *arguments, **changes):
        home = str(self.cloud.home(0))
        command = ["bash", f"{home}/fastwhisper/worker.sh", *arguments]
        return self.cloud.execute(command, HOME=home, **changes)

    def start(self, attempt="1", *command):
        command = command or ("train", "recipe.py")
        return self("start", "askd", attempt, self.cloud.commit, *command)


@pytest.fixture
def worker(cloud):
    """Worker 0, with the commit installed."""
    cloud.ready()
    return Worker(cloud)


def test_a_run_is_one_process_group_of_its_own_and_outlives_its_starter(cloud, worker):
    started = worker.start()
    assert started.returncode == 0, started.stderr
    cloud.until(lambda: cloud.logged("serving"))
    group = cloud.group(0)
    assert os.getpgid(group) == os.getsid(group) == group != os.getpgid(0)
    line = worker("status", "askd").stdout
    assert line == "worker=w-0 run=askd state=running code=- log=serving\n"


def test_stop_ends_exactly_that_group_and_the_exit_code_is_kept(cloud, worker):
    twin = cloud.home(0) / f"fastwhisper/code/{cloud.commit}/.venv/bin/fastwhisper"
    # The same program, from the same folder, of the same user, not started by worker.sh.
    other = subprocess.Popen(
        [str(twin), "train", "recipe.py"],
        env=cloud.environment | {"HOME": str(cloud.folder)},
        stdout=subprocess.DEVNULL,
    )
    with other:
        try:
            worker.start()
            cloud.until(lambda: cloud.logged("serving"))
            group = cloud.group(0)
            stopped = worker("stop", "askd", "600")
            assert stopped.stdout == "worker=w-0 run=askd state=exited code=75 log=serving\n"
            assert stopped.returncode == 0
            assert not cloud.alive(group)
            assert cloud.alive(other.pid)
        finally:
            other.kill()


def test_a_recorded_number_that_belongs_to_others_now_is_left_alone(cloud, worker):
    folder = cloud.run_folder(0)
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, start_new_session=True) as other:
        try:
            (folder / "process").write_text(f"{other.pid} 1\n")
            assert "state=died" in worker("stop", "askd", "600").stdout
            assert cloud.alive(other.pid)
        finally:
            other.kill()


def test_a_run_that_does_not_listen_is_reported_and_not_killed(cloud, worker):
    cloud.write("starts", "stubborn")
    worker.start()
    cloud.until(lambda: cloud.logged("serving"))
    stopped = worker("stop", "askd", "3")
    assert "state=running" in stopped.stdout
    assert "has not stopped yet" in stopped.stderr
    assert stopped.returncode == 1
    assert cloud.alive(cloud.group(0))


@pytest.mark.parametrize("code", ["0", "1", "2", "75"])
def test_the_exit_code_is_recorded(cloud, worker, code):
    cloud.write("starts", code)
    worker.start()
    cloud.until(cloud.ended)
    assert f"state=exited code={code} " in worker("status", "askd").stdout


def test_a_run_killed_from_outside_died(cloud, worker):
    worker.start()
    cloud.until(lambda: cloud.logged("serving"))
    os.killpg(cloud.group(0), signal.SIGKILL)
    cloud.until(lambda: not cloud.alive(cloud.group(0)))
    assert "state=died code=- " in worker("status", "askd").stdout


def test_a_run_is_not_started_twice(cloud, worker):
    worker.start("1")
    cloud.until(lambda: cloud.logged("serving"))
    group = cloud.group(0)
    second = worker.start("2")
    assert second.returncode == 2
    assert "askd is running already" in second.stderr
    assert cloud.group(0) == group
    assert cloud.alive(group)


def test_an_attempt_asked_for_twice_is_started_once(cloud, worker):
    cloud.write("starts", "0")
    worker.start("1")
    cloud.until(cloud.ended)
    again = worker.start("1")
    assert again.returncode == 0
    assert "was started already" in again.stdout
    assert (cloud.run_folder(0) / "log").read_text().count("== askd/1") == 1


def test_a_run_that_ended_can_be_started_again_and_keeps_its_log(cloud, worker):
    cloud.write("starts", "75 serve")
    worker.start("1")
    cloud.until(cloud.ended)
    second = worker.start("2")
    assert second.returncode == 0, second.stderr
    cloud.until(lambda: cloud.logged("serving"))
    assert "state=running" in worker("status", "askd").stdout
    log = worker("log", "askd", "100").stdout
    assert "== askd/1: fastwhisper train recipe.py" in log
    assert "== askd/2: fastwhisper train recipe.py" in log


def test_two_runs_stand_side_by_side(cloud, worker):
    worker.start()
    worker("start", "other", "1", cloud.commit, "train", "recipe.py")
    states = worker("status").stdout
    assert "run=askd state=running" in states
    assert "run=other state=running" in states
    worker("stop", "askd", "600")
    assert "run=other state=running" in worker("status").stdout


def test_a_commit_is_installed_once_and_a_broken_install_is_done_again(cloud, worker):
    installs = cloud.folder / "installs"
    assert len(installs.read_text().splitlines()) == 4
    assert cloud.tpu("sync").returncode == 0
    assert len(installs.read_text().splitlines()) == 4
    code = cloud.home(2) / f"fastwhisper/code/{cloud.commit}"
    (code / ".installed").unlink()
    (code / "left-over").touch()
    assert cloud.tpu("sync").returncode == 0
    assert len(installs.read_text().splitlines()) == 5
    assert not (code / "left-over").exists()
    assert "[tpu]" in installs.read_text()


def test_a_commit_that_is_not_installed_is_refused(worker):
    refused = worker("start", "askd", "1", "0" * 40, "train", "recipe.py")
    assert refused.returncode == 2
    assert "is not installed here; sync it first" in refused.stderr
