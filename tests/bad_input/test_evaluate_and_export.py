"""Options of evaluate and export that cannot be used are refused."""

import json

import pytest


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--limit", 0], "--limit 0 must be at least 1"),
        (
            ["--limit", "ten"],
            "argument --limit: invalid int value: 'ten'; see fastwhisper evaluate",
        ),
        (["--batch-size", 0], "--batch-size 0 must be at least 1"),
        (["--batch-size", 12], "--batch-size=12 does not divide over 8 devices"),
        (["--max-new-tokens", -1], "--max-new-tokens -1 must be at least 1"),
        (["--normalizer", "german"], "argument --normalizer: invalid choice: 'german'"),
        (["--window", 4], "--window 4: the model hears windows of 30 s; choose one of them"),
        (["--language", "xx"], "utterance u0: language 'xx' is not known to the model"),
    ],
)
def test_an_unusable_option_of_evaluate_is_refused(world, refused, options, named):
    refused(world.evaluate(*options), named)


def test_windows_of_a_model_that_cannot_be_are_refused(world, refused):
    path = world.teacher / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"fastwhisper_windows": {"seconds": [4, 2]}}))
    named = f"{path}: fastwhisper_windows.seconds=[4, 2] must be ascending lengths above 0"
    refused(world.evaluate(), named)
    refused(world.train(), named)
    refused(("transcribe", world.teacher, world.manifest.parent / "0.wav"), named)


def test_a_report_whose_folder_cannot_be_made_is_refused(world, refused):
    path = world.path("notes") / "reports" / "tiny.json"
    refused(world.evaluate("--report", path), f"report '{path}' cannot be written; name a file in")


def test_a_report_that_is_a_folder_is_refused(world, refused):
    refused(world.evaluate("--report", world.teacher), "teacher' cannot be written; name a file")


def export(run_dir, out, *options):
    return ("export", run_dir, "--out", out, *options)


def test_an_export_of_a_folder_without_a_run_is_refused(world, refused):
    out = world.folder / "deep" / "exported"
    named = "is no run directory (there is no such folder); name the --run-dir of a training"
    refused(export(world.folder / "nowhere", out), named)
    # A model's folder has a config.json too.
    refused(export(world.teacher, out), "is no run directory (it has no run's config.json)")


def test_an_export_of_a_missing_checkpoint_is_refused(world, refused):
    out = world.folder / "deep" / "exported"
    run_dir = world.unfinished_run()
    refused(export(run_dir, out), "has no complete checkpoint yet; train until the first is saved")
    refused(export(run_dir, out, "--step", 3), "no checkpoint of step 3 in", "it has: none")


def test_an_export_of_a_best_checkpoint_that_was_not_kept_is_refused(world, refused):
    run_dir, out = world.unfinished_run(), world.folder / "exported"
    refused(export(run_dir, out, "--best"), "keeps no best checkpoint: its training.keep_best is")
    for options in (("--step", 4), ("--ema",)):
        named = f"{options[0]} is given too; give one of them"
        refused(export(run_dir, out, "--best", *options), named)
    run_dir = world.unfinished_run("--training.keep_best", "eval_wer")
    refused(export(run_dir, out, "--best"), "has no checkpoint that was scored by eval_wer; train")


def test_an_export_of_an_ema_of_a_run_with_snapshots_is_refused(world, refused):
    run_dir = world.unfinished_run("--objective.self_teacher", "snapshot")
    named = "keeps no EMA: its objective.self_teacher is 'snapshot'; export without --ema"
    refused(export(run_dir, world.folder / "exported", "--ema"), named)


def test_an_export_without_the_teacher_is_refused(world, refused):
    run_dir = world.unfinished_run()
    world.teacher.rename(world.folder / "moved")
    refused(export(run_dir, world.folder / "exported"), "there is no folder", "teacher'; give a")


def test_an_export_that_would_delete_other_files_is_refused(world, refused):
    run_dir = world.unfinished_run()
    refused(export(run_dir, world.manifest.parent), "holds 0.wav, which an export would delete")
    named = "holds a model of another origin, which an export would delete; choose a new folder"
    refused(export(run_dir, world.teacher), named)
    refused(
        export(run_dir, run_dir), "which an export would delete; choose a new folder or empty it"
    )


@pytest.mark.parametrize("below", [".", "deep/exported"])
def test_an_export_to_a_folder_that_cannot_be_made_is_refused(world, refused, below):
    run_dir, file = world.unfinished_run(), world.path("notes")
    refused(export(run_dir, file / below), f"--out {file / below}: {file} is a file; choose a")
