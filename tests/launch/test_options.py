"""Options before or after the command, the environment, and one line for what is wrong."""

import shlex

import pytest

COMMANDS = ("create", "sync", "run", "status", "logs", "stop", "resume", "delete")
CREATE = ("create", "--dry-run", "--accelerator-type", "v5litepod-16")


def script(cloud):
    return str(cloud.checkout / "launch/tpu.sh")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_each_help_works_as_it_stands(cloud, command):
    shown = cloud.execute([script(cloud), command, "--help"])
    assert shown.returncode == 0
    example = shown.stdout.splitlines()[-1].strip()
    assert example.startswith(f"launch/tpu.sh {command} --dry-run ")
    words = shlex.split(example.replace("launch/tpu.sh", script(cloud)))
    ran = cloud.execute(words)
    assert ran.returncode == 0, ran.stderr
    assert "gcloud compute tpus " in ran.stdout
    assert cloud.calls == []


def test_help_names_every_command(cloud):
    shown = cloud.execute([script(cloud), "--help"])
    assert shown.returncode == 0
    assert all(f"\n  {command} " in shown.stdout for command in COMMANDS)
    assert cloud.execute([script(cloud)]).returncode == 2


def test_options_stand_before_or_after_the_command(cloud):
    after = cloud.tpu(*CREATE)
    assert after.returncode == 0, after.stderr
    options = [*cloud.command(*CREATE)[2:]]
    before = cloud.execute([script(cloud), *options, "create"])
    assert before.stdout == after.stdout
    joined = cloud.tpu("create", "--dry-run", "--accelerator-type=v5litepod-16")
    assert joined.stdout == after.stdout


def test_the_environment_is_used_where_no_option_is_given(cloud):
    environment = {
        "PROJECT": "other-project",
        "ZONE": "us-east5-b",
        "TPU_NAME": "other",
        "ACCELERATOR_TYPE": "v6e-16",
    }
    ran = cloud.execute([script(cloud), "create", "--dry-run"], **environment)
    assert ran.returncode == 0, ran.stderr
    assert "create other --project=other-project --zone=us-east5-b " in ran.stdout
    assert "--runtime-version=v2-alpha-tpuv6e" in ran.stdout
    assert cloud.tpu(*CREATE, **environment).stdout == cloud.tpu(*CREATE).stdout


WRONG = {
    "no project": (["create", "--dry-run"], "'create' needs --project, or $PROJECT"),
    "no command": (["make"], "'make' is not one of create sync run"),
    "two commands": (["create", "sync"], "'sync' after 'create'"),
    "no such option": (["create", "--colour", "red"], "there is no option --colour"),
    "an option of another command": (["sync", "--spot"], "'sync' has no option --spot"),
    "no value": (["create", "--zone"], "--zone needs a value: --zone ZONE"),
    "a value for a switch": (["create", "--spot=yes"], "--spot takes no value"),
}
WRONG_VALUES = {
    "a zone that is a region": (
        ("create", "--zone", "us-west4", "--accelerator-type", "v6e-16"),
        "--zone is 'us-west4'; it must be like us-west4-a",
    ),
    "an accelerator by its short name": (
        ("create", "--accelerator-type", "v5e-16"),
        "--accelerator-type is 'v5e-16'; it must be like v5litepod-16 (v5e)",
    ),
    "a name with a space": (("stop", "--name", "a b", "--run-id", "x"), "--name is 'a b'"),
    "a run id with a slash": (("stop", "--run-id", "../x"), "--run-id is '../x'"),
    "no run id": (("stop",), "'stop' needs --run-id, or $RUN_ID"),
    "no slices": (("sync", "--slices", "0"), "--slices is '0'"),
    "no recipe": (("run", "--run-id", "x", "--runs", "r"), "give the recipe and its options"),
    "its own run directory": (
        ("run", "--run-id", "x", "--runs", "r", "--", "recipe.py", "--run-dir", "y"),
        "--run-dir is --runs and --run-id: r/x",
    ),
    "arguments for what takes none": (("stop", "--run-id", "x", "--", "y"), "takes nothing after"),
    "no such commit": (("sync", "--commit", "nonsense"), "has no such commit"),
}


@pytest.mark.parametrize("case", [*WRONG, *WRONG_VALUES])
def test_what_is_wrong_is_said_in_one_line(cloud, case):
    if case in WRONG:
        arguments, expected = WRONG[case]
        ran = cloud.execute([script(cloud), *arguments])
    else:
        arguments, expected = WRONG_VALUES[case]
        ran = cloud.tpu(*arguments)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("tpu.sh: ")
    assert expected in ran.stderr
    assert ran.stdout == ""
    assert cloud.calls == []


def test_a_commit_without_the_launcher_is_refused(cloud):
    author = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.com")
    cloud.git("rm", "--quiet", "--cached", "launch/worker.sh")
    cloud.git(*author, "commit", "--quiet", "-m", "without")
    ran = cloud.tpu("sync", "--commit", "HEAD")
    assert ran.returncode == 2
    assert "that commit has no launch/worker.sh" in ran.stderr
