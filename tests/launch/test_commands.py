"""sync, run, status, logs, stop and delete against the four workers."""

import json
import os
import signal
import subprocess

import pytest

RUN = ("--run-id", "askd", "--runs", "gs://bucket/runs")
HOSTILE = [
    "two words",
    "it's",
    'say "hi"',
    "$(touch pwned)",
    "`touch pwned`",
    "$HOME",
    "a;b&&c|d>e",
    "*",
    "",
    "line\nbreak",
    "back\\slash",
    "!!",
    "~",
    "été",
]


def test_every_worker_runs_the_recipe_from_the_commits_folder(cloud):
    cloud.ready(starts="0")
    ran = cloud.tpu("run", *RUN, "--", "configs/askd_large_v3.py", "--data.train", "gs://b/train")
    assert ran.returncode == 0, ran.stderr
    cloud.until(cloud.ended)
    for number in range(4):
        seen = cloud.seen(number)
        assert seen["arguments"] == [
            "train",
            "configs/askd_large_v3.py",
            "--run-dir",
            "gs://bucket/runs/askd",
            "--data.train",
            "gs://b/train",
        ]
        assert seen["folder"] == str(cloud.home(number) / f"fastwhisper/code/{cloud.commit}")


def test_arguments_arrive_as_they_were_given(cloud):
    cloud.ready(starts="0")
    ran = cloud.tpu("run", *RUN, "--", "recipe with spaces.py", *HOSTILE)
    assert ran.returncode == 0, ran.stderr
    cloud.until(cloud.ended)
    for number in range(4):
        arguments = cloud.seen(number)["arguments"]
        assert arguments[:2] == ["train", "recipe with spaces.py"]
        assert arguments[4:] == HOSTILE
        assert not list(cloud.home(number).rglob("pwned"))
    assert not list(cloud.checkout.rglob("pwned"))


def test_a_run_that_is_running_is_not_started_again(cloud):
    cloud.ready()
    assert cloud.tpu("run", *RUN, "--", "recipe.py").returncode == 0
    refused = cloud.tpu("run", *RUN, "--", "recipe.py")
    assert refused.returncode == 2
    assert "askd is running already: stop it first" in refused.stderr
    assert cloud.kinds().count("worker start") == 1


def test_status_tells_the_slice_and_each_worker(cloud):
    cloud.ready()
    cloud.tpu("run", *RUN, "--", "recipe.py")
    shown = cloud.tpu("status", "--run-id", "askd").stdout.splitlines()
    assert shown[0] == "askd-16: ACTIVE"
    assert [line.partition(" log=")[0] for line in shown[1:]] == [
        f"worker=w-{number} run=askd state=running code=-" for number in range(4)
    ]
    cloud.write("state", "SUSPENDED")
    assert cloud.tpu("status").stdout == "askd-16: SUSPENDED\n"


def test_logs_are_one_workers(cloud):
    cloud.ready(starts="0")
    cloud.tpu("run", *RUN, "--", "recipe.py")
    cloud.until(cloud.ended)
    shown = cloud.tpu("logs", "--run-id", "askd", "--worker", "2", "--lines", "1")
    assert json.loads(shown.stdout)["folder"].startswith(str(cloud.home(2)))


def test_stop_reaches_every_worker(cloud):
    cloud.ready()
    cloud.tpu("run", *RUN, "--", "recipe.py")
    cloud.until(lambda: cloud.logged("serving"))
    stopped = cloud.tpu("stop", "--run-id", "askd")
    assert stopped.returncode == 0
    assert stopped.stdout.count("state=exited code=75") == 4


def test_a_start_that_fails_somewhere_leaves_nothing_running(cloud):
    cloud.ready()
    (cloud.home(3) / f"fastwhisper/code/{cloud.commit}/.installed").unlink()
    failed = cloud.tpu("run", *RUN, "--", "recipe.py")
    assert failed.returncode == 1
    assert "not every worker started; ending it where it runs" in failed.stderr
    states = cloud.tpu("status", "--run-id", "askd").stdout
    assert states.count("state=exited") == 3
    assert "state=running" not in states


def test_secrets_travel_in_a_private_file_that_is_removed(cloud, tmp_path):
    cloud.ready(starts="0")
    secrets = tmp_path / "secrets"
    secrets.write_text("HF_TOKEN=hf_a b$(c)'d\n\nOTHER=1\n")
    secrets.chmod(0o600)
    ran = cloud.tpu("run", *RUN, "--secrets", str(secrets), "--", "recipe.py")
    assert ran.returncode == 0, ran.stderr
    cloud.until(cloud.ended)
    for number in range(4):
        assert cloud.seen(number)["token"] == "hf_a b$(c)'d"
        assert not list(cloud.home(number).glob("*.env"))
    assert "hf_a" not in json.dumps(cloud.calls)
    assert secrets.exists()


def test_secrets_that_others_may_read_are_refused(cloud, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.write_text("HF_TOKEN=x\n")
    secrets.chmod(0o644)
    refused = cloud.tpu("run", *RUN, "--secrets", str(secrets), "--", "recipe.py")
    assert refused.returncode == 2
    assert f"chmod 600 {secrets}" in refused.stderr
    secrets.chmod(0o600)
    secrets.write_text("just a token\n")
    refused = cloud.tpu("run", *RUN, "--secrets", str(secrets), "--", "recipe.py")
    assert "must be NAME=VALUE" in refused.stderr
    assert cloud.calls == []


def test_secrets_are_removed_where_the_start_failed(cloud, tmp_path):
    cloud.ready()
    secrets = tmp_path / "secrets"
    secrets.write_text("HF_TOKEN=x\n")
    secrets.chmod(0o600)
    cloud.refuse("worker.sh\\ start", 255)
    cloud.refuse("worker.sh start", 255)
    assert cloud.tpu("run", *RUN, "--secrets", str(secrets), "--", "recipe.py").returncode == 1
    copies = [call for call in cloud.calls if "scp" in call]
    assert any(word.endswith(".env") for call in copies for word in call)
    assert not list(cloud.folder.rglob("*.env"))


def test_only_what_is_committed_is_installed(cloud):
    script = cloud.checkout / "launch/tpu.sh"
    script.write_text(script.read_text() + "# changed\n")
    refused = cloud.tpu("sync")
    assert refused.returncode == 2
    assert "uncommitted changes" in refused.stderr
    assert cloud.calls == []
    assert cloud.tpu("sync", "--commit", "HEAD").returncode == 0
    code = cloud.home(1) / f"fastwhisper/code/{cloud.commit}"
    assert "# changed" not in (code / "launch/tpu.sh").read_text()


def test_untracked_files_are_no_hindrance(cloud):
    cloud.ready(starts="0")
    (cloud.checkout / "plan.json").write_text("{}\n")
    assert cloud.tpu("sync").returncode == 0
    ran = cloud.tpu("run", *RUN, "--", "recipe.py")
    assert ran.returncode == 0, ran.stderr
    assert not (cloud.home(1) / f"fastwhisper/code/{cloud.commit}/plan.json").exists()


@pytest.mark.parametrize("recipe", ["new.py", "/elsewhere/recipe.py", "configs", "no such.py"])
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_recipe_that_the_commit_does_not_hold_is_refused(cloud, command, recipe):
    (cloud.checkout / "new.py").write_text("config = None\n")
    slices = ("--accelerator-type", "v5litepod-16") if command == "resume" else ()
    for chosen in ((), ("--commit", "HEAD"), ("--dry-run",)):
        refused = cloud.tpu(command, *slices, *RUN, *chosen, "--", recipe)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert f"the recipe '{recipe}' is no file of commit {cloud.commit[:12]}" in line
        assert "commit it" in line
    assert cloud.calls == []


def test_delete_asks_and_takes_only_what_create_made(cloud):
    cloud.ready()
    asked = cloud.tpu("delete")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    cloud.write("labels", "")
    kept = cloud.tpu("delete", "--yes")
    assert kept.returncode == 1
    assert "create did not make it" in kept.stderr
    assert "queued-resources delete" not in cloud.kinds()
    cloud.write("labels", "launcher=fastwhisper")
    assert cloud.tpu("delete", "--yes").returncode == 0
    assert cloud.kinds().count("queued-resources delete") == 1


def test_create_waits_and_says_each_new_state(cloud):
    cloud.write("state", "WAITING_FOR_RESOURCES")
    cloud.write("states", "WAITING_FOR_RESOURCES PROVISIONING ACTIVE")
    created = cloud.tpu("create", "--accelerator-type", "v5litepod-16")
    assert created.returncode == 0
    assert created.stderr.splitlines() == [
        "== askd-16: WAITING_FOR_RESOURCES",
        "== askd-16: PROVISIONING",
        "== askd-16: ACTIVE",
    ]
    assert cloud.sleeps == ["30"] * 3


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_create_says_why_the_slice_will_not_come(cloud, state):
    cloud.write("state", state)
    created = cloud.tpu("create", "--accelerator-type", "v5litepod-16")
    assert created.returncode == 1
    assert "will not become ACTIVE" in created.stderr
    assert "why: no capacity" in created.stderr


def test_create_stops_waiting_and_leaves_the_request_in_the_queue(cloud):
    cloud.write("state", "WAITING_FOR_RESOURCES")
    created = cloud.tpu("create", "--accelerator-type", "v5litepod-16", "--wait", "2")
    assert created.returncode == 75
    assert "is still WAITING_FOR_RESOURCES after 2 min and stays in the queue" in created.stderr
    assert cloud.sleeps == ["30"] * 4
    assert (cloud.folder / "state").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_that_is_interrupted_ends_at_once_and_deletes_nothing(cloud, number, tmp_path):
    cloud.write("state", "WAITING_FOR_RESOURCES")
    command = cloud.command("create", "--accelerator-type", "v5litepod-16", "--wait", "9999")
    with subprocess.Popen(
        command, env=cloud.environment, stderr=subprocess.PIPE, text=True
    ) as waiting:
        cloud.until(lambda: len(cloud.sleeps) >= 2)
        os.kill(waiting.pid, number)
        _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 75
    assert "interrupted; what was asked for or started goes on" in said
    assert (cloud.folder / "state").exists()
    assert "queued-resources delete" not in cloud.kinds()


def test_gclouds_own_error_is_shown_and_nothing_is_concluded_from_it(cloud):
    cloud.refuse("describe", 1, stderr="ERROR: PERMISSION_DENIED: no\n")
    shown = cloud.tpu("status")
    assert shown.returncode == 1
    assert "PERMISSION_DENIED" in shown.stderr
