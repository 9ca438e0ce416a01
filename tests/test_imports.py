"""Who may import whom: a reader goes down the main path and never back up."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fastwhisper_jax
from fastwhisper_jax.cli import COMMANDS

PACKAGE = Path(fastwhisper_jax.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The commands, and what a run is, see the whole config.
SEES_CONFIG = {"cli", "commands", "config", "distillation", "demo"}

# What each room may import, beside itself. A reader goes down the list and never back up.
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "progress": set(),
    "arguments": {"errors"},
    "parser": {"errors"},
    "config": {"errors"},
    "audio": {"files", "errors"},
    "models": {"audio/constants", "errors"},
    "losses": {"errors"},
    "data": {"audio", "files", "errors"},
    "training": {"config", "data", "files", "progress", "errors"},
    "decoding": {"models", "audio/constants", "errors"},
    "evaluation": {"audio", "data", "decoding", "models", "training", "files", "errors"},
    "transcription": {"audio", "decoding", "models", "errors"},
    "export": {"models", "audio/constants", "audio/windows", "files", "errors"},
    "cost": {"models", "losses", "training", "errors"},
    "distillation": {
        "config",
        "audio",
        "data",
        "models",
        "losses",
        "training",
        "decoding",
        "evaluation",
        "export",
        "cost",
        "files",
        "progress",
        "errors",
    },
    "demo": {
        "config",
        "audio",
        "decoding",
        "evaluation",
        "export",
        "models",
        "files",
        "progress",
        "errors",
    },
}
# The command line sees everything; nothing sees it.
TOP = {"cli", "commands"}


def name_of(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imported(path):
    """Dotted names of all modules that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            if node.module == "fastwhisper_jax":
                yield from (f"fastwhisper_jax.{alias.name}" for alias in node.names)
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_against_the_arrows(path):
    name = name_of(path)
    part = name.split("/")[0]
    if part in TOP | {"__init__"}:
        return
    assert part in MAY_IMPORT, f"{part} is a new part: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[part]
    ours = {tuple(m.split(".")[1:3]) for m in imported(path) if m.startswith("fastwhisper_jax.")}
    against = {
        "/".join(module)
        for module in ours
        if not {module[0], "/".join(module)} & (allowed | {part})
    }
    assert not against


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_commands_and_distillation_see_the_whole_config(path):
    """Everything else takes what it needs: values, or one section of the config."""
    name = name_of(path)
    if name.split("/")[0] not in SEES_CONFIG:
        whole = {"fastwhisper_jax.config", "fastwhisper_jax.config.Config"}
        assert not whole & set(imported(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_torch(path):
    banned = {"torch", "torchaudio", "torchcodec", "librosa", "tensorflow"}
    assert not {module.split(".")[0] for module in imported(path)} & banned


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_imports_neither_jax_nor_transformers(command):
    """They take seconds to import; help answers at once."""
    script = """
import json, sys
from fastwhisper_jax.cli import main
try:
    code = main(json.loads(sys.argv[1]))
except SystemExit as exit:
    code = exit.code
slow = {"jax", "flax", "orbax", "transformers", "datasets", "numpy"} & set(sys.modules)
print(json.dumps({"code": code or 0, "slow": sorted(slow)}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([*command, "--help"])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"code": 0, "slow": []}
    assert "usage" in done.stdout.lower()
    assert done.stderr == ""
