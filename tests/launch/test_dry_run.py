"""--dry-run prints every command of a 4-worker slice, line by line, and calls nothing."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

SLICE = ("--accelerator-type", "v5litepod-16", "--spot")
RUN = ("--run-id", "askd", "--runs", "gs://bucket/runs")
RECIPE = ("--", "configs/askd_large_v3.py", "--data.train", "gs://bucket/train")

# Each command, and the file in dry_runs/ with what it must print.
DRY_RUNS = {
    "create": ("create", *SLICE),
    "sync": ("sync",),
    "run": ("run", *RUN, *RECIPE),
    "resume": ("resume", *SLICE, *RUN, *RECIPE),
    "stop": ("stop", "--run-id", "askd"),
    "delete": ("delete", "--yes"),
}


@pytest.mark.parametrize("case", DRY_RUNS)
def test_a_dry_run_prints_these_lines_and_calls_nothing(cloud, case):
    arguments = DRY_RUNS[case]
    expected = (Path(__file__).parent / f"dry_runs/{case}.txt").read_text()
    ran = cloud.tpu(arguments[0], "--dry-run", *arguments[1:])
    expected = expected.replace("COMMIT", cloud.commit).replace("CHECKOUT", str(cloud.checkout))
    assert ran.stdout.splitlines() == expected.splitlines()
    assert ran.returncode == 0
    assert cloud.calls == []
    assert cloud.sleeps == []


@pytest.mark.parametrize("case", DRY_RUNS)
def test_what_a_dry_run_prints_is_what_is_then_called(cloud, case):
    arguments = DRY_RUNS[case]
    cloud.ready(starts="0")
    if case == "resume":
        cloud.write("state", "SUSPENDED")
    if case == "create":
        (cloud.folder / "state").unlink()
    printed = cloud.tpu(arguments[0], "--dry-run", *arguments[1:]).stdout
    ran = cloud.tpu(*arguments)
    assert ran.returncode == 0, ran.stderr
    foretold = [shlex.split(line) for line in printed.splitlines() if line.startswith("gcloud")]
    assert [_comparable(call) for call in cloud.calls] == [_comparable(call) for call in foretold]


def _comparable(call):
    """Without the temporary folder and the time of the attempt."""
    text = "\n".join(call)
    text = re.sub(r"/tmp/tmp\.\w+/", "/tmp/", text)
    return re.sub(r"\b(ATTEMPT|\d{8}T\d{6}Z-\d+)\b", "ATTEMPT", text)


def test_several_slices_are_one_request_and_each_gets_the_command(cloud):
    created = cloud.tpu("create", "--dry-run", *SLICE, "--slices", "2").stdout
    assert " --node-count=2 --node-prefix=askd-16 " in created
    assert "--node-id" not in created
    stopped = cloud.tpu("stop", "--dry-run", "--slices", "2", "--run-id", "askd")
    assert [shlex.split(line)[5] for line in stopped.stdout.splitlines()] == [
        "askd-16-0",
        "askd-16-1",
    ]


@pytest.mark.parametrize(
    ("accelerator", "image"),
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-32", "v2-alpha-tpuv5"),
        ("v6e-16", "v2-alpha-tpuv6e"),
    ],
)
def test_the_image_is_the_generations(cloud, accelerator, image):
    printed = cloud.tpu("create", "--dry-run", "--accelerator-type", accelerator).stdout
    assert f" --runtime-version={image} " in printed
    assert "--spot" not in printed


def test_every_option_that_is_used_is_one_of_gcloud(cloud):
    """Against the list of options that an installed gcloud carries; no call is made."""
    real = shutil.which("gcloud")
    tree = real and Path(real).resolve().parents[1] / "data/cli/gcloud_completions.py"
    if not tree or not tree.is_file():
        pytest.skip("gcloud is not installed: its list of options is not there to compare with")
    names: dict = {}
    exec(compile(tree.read_text(), str(tree), "exec"), names)
    root = names["STATIC_COMPLETION_CLI_TREE"]
    extra = ("--slices", "2", "--service-account", "a@b.iam.gserviceaccount.com")
    commands = [(case[0], "--dry-run", *case[1:]) for case in DRY_RUNS.values()]
    commands.append(("create", "--dry-run", *SLICE, *extra))
    commands.append(("logs", "--dry-run", "--run-id", "askd", "--follow"))
    for command in commands:
        for line in cloud.tpu(*command).stdout.splitlines():
            if not line.startswith("gcloud"):
                continue
            node, words = root, shlex.split(line)[1:]
            while words[0] in node["commands"]:
                node = node["commands"][words.pop(0)]
                if "commands" not in node:
                    break
            known = {*node["flags"], *root["flags"]}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known, line
