"""resume: over preemptions, never over bugs, and not for ever."""

import os
import signal

import pytest

SLICE = ("--accelerator-type", "v5litepod-16", "--spot")
RUN = ("--run-id", "askd", "--runs", "gs://bucket/runs")
RESUME = ("resume", *SLICE, *RUN)
RECIPE = ("--", "recipe.py")


def changes(cloud):
    """The calls that change something."""
    reads = {"queued-resources describe", "tpu-vm describe", "worker status"}
    return [kind for kind in cloud.kinds() if kind not in reads]


SYNC = ["tpu-vm scp", "tpu-vm scp", "worker install"]


def test_from_nothing_to_a_run_that_is_done(cloud):
    cloud.write("starts", "0")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert changes(cloud) == ["queued-resources create", *SYNC, "worker start"]
    assert ran.stderr.endswith("== askd is done\n")


def test_a_preempted_slice_is_made_again_and_the_same_run_goes_on(cloud):
    cloud.write("starts", "preempted")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert changes(cloud) == [
        "queued-resources create",
        *SYNC,
        "worker start",
        "queued-resources delete",
        "queued-resources create",
        *SYNC,
        "worker start",
    ]
    starts = [call[-1] for call in cloud.calls if "worker.sh start" in call[-1]]
    assert all("--run-dir gs://bucket/runs/askd" in start for start in starts)
    assert len({start.split()[4] for start in starts}) == len(starts)  # attempts differ


def test_75_is_tried_again_on_the_slice_that_is_there(cloud):
    cloud.write("starts", "75 75 0")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert changes(cloud) == ["queued-resources create", *SYNC, *["worker start"] * 3]


@pytest.mark.parametrize("code", ["1", "2"])
def test_a_bug_or_bad_input_is_not_tried_again_and_its_log_is_shown(cloud, code):
    cloud.ready(starts=code)
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 1
    assert changes(cloud) == [*SYNC, "worker start", "worker failure"]
    assert f"w-3: askd ended with exit code {code}" in ran.stdout
    assert 'w-3: {"arguments": ["train", "recipe.py"' in ran.stdout
    assert "is not tried again" in ran.stderr


def test_workers_that_fail_just_before_the_preemption_shows_are_not_a_bug(cloud):
    cloud.ready(starts="1")
    cloud.tpu("run", *RUN, *RECIPE)
    cloud.until(cloud.ended)
    cloud.write("states", "SUSPENDED")  # what the second look finds
    cloud.write("starts", "0")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert cloud.kinds().count("queued-resources create") == 1


def test_one_worker_with_a_bug_among_interrupted_ones_is_a_bug(cloud):
    cloud.ready(starts="75")
    cloud.write("starts.w-2", "1")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 1
    assert cloud.kinds().count("worker start") == 1
    assert [line.split(":")[0] for line in ran.stdout.splitlines() if "ended with" in line] == [
        "w-2"
    ]


def test_a_worker_that_died_is_started_again(cloud):
    cloud.ready(starts="serve")
    cloud.tpu("run", *RUN, *RECIPE)
    for number in range(4):
        os.killpg(cloud.group(number), signal.SIGKILL)
    cloud.write("starts", "0")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert cloud.kinds().count("worker start") == 2


def test_starts_are_bounded_and_further_and_further_apart(cloud):
    cloud.ready(starts="75")
    ran = cloud.tpu(*RESUME, "--retries", "4", "--backoff", "700", "--poll", "7", *RECIPE)
    assert ran.returncode == 75
    assert cloud.kinds().count("worker start") == 4
    assert [pause for pause in cloud.sleeps if float(pause) > 100] == ["700", "1400", "1800"]
    assert "was started 4 times and is not done" in ran.stderr


def test_a_slice_that_is_not_to_be_had_is_asked_for_a_bounded_number_of_times(cloud):
    cloud.write("starts", "0")
    cloud.write("state", "FAILED")
    cloud.write("labels", "launcher=fastwhisper")
    for _ in range(2):
        cloud.refuse("queued-resources create", 1, stderr="ERROR: no quota\n")
    ran = cloud.tpu(*RESUME, "--retries", "2", *RECIPE)
    assert ran.returncode == 75
    assert changes(cloud).count("queued-resources create") == 2
    assert "no quota" in ran.stderr


def test_a_slice_that_others_made_is_not_deleted(cloud):
    cloud.write("starts", "0")
    cloud.write("state", "SUSPENDED")
    cloud.write("labels", "")
    ran = cloud.tpu(*RESUME, "--retries", "2", *RECIPE)
    assert ran.returncode == 75
    assert "create did not make it" in ran.stderr
    assert changes(cloud) == []


def test_a_run_that_goes_on_is_watched_and_not_started_again(cloud):
    cloud.ready(starts="serve")
    cloud.tpu("run", *RUN, *RECIPE)
    # The third look finds it gone with the slice's end; the one after that, a slice to make.
    cloud.write("states", "ACTIVE ACTIVE SUSPENDED")
    cloud.write("starts", "0")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert cloud.kinds().count("queued-resources create") == 1
    assert cloud.kinds().count("worker start") == 2


def test_a_broken_connection_is_not_taken_for_a_preemption(cloud):
    cloud.ready(starts="0")
    for _ in range(3):
        cloud.refuse("queued-resources describe", 1, stderr="ERROR: network is unreachable\n")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 0, ran.stderr
    assert "queued-resources delete" not in cloud.kinds()


def test_resume_gives_up_when_gcloud_never_answers(cloud):
    cloud.ready(starts="0")
    for _ in range(5):
        cloud.refuse("queued-resources describe", 1, stderr="ERROR: network is unreachable\n")
    ran = cloud.tpu(*RESUME, *RECIPE)
    assert ran.returncode == 1
    assert "gcloud failed 5 times in a row" in ran.stderr
    assert changes(cloud) == []


def test_resume_needs_a_run_directory_that_outlives_the_slice(cloud):
    ran = cloud.tpu("resume", *SLICE, "--run-id", "askd", "--runs", "runs", *RECIPE)
    assert ran.returncode == 2
    assert "--runs is 'runs'; it must be like gs://" in ran.stderr
    assert cloud.calls == []
