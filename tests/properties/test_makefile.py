"""What `make` would do, by its dry run: the demo installs what runs need, and the tests what they need besides."""

import os
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is absent")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the project's Makefile, where nothing is installed."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def dry_run(folder: Path, *arguments: str) -> str:
    """The commands that `make` would run, also where an outer `make` runs the tests.

    What the outer one leaves in the environment would make this one name each folder that it enters.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_demo_installs_only_what_runs_need(folder: Path) -> None:
    commands = dry_run(folder, "demo")
    assert "--editable .\n" in commands
    assert "[dev]" not in commands
    assert commands.splitlines()[-1].endswith("-m launcher train recipe=demo")


def test_the_tests_need_more(folder: Path) -> None:
    commands = dry_run(folder, "test")
    assert "--editable '.[dev]'" in commands
    assert commands.index("--editable .\n") < commands.index("'.[dev]'") < commands.index("ruff format --check")


def test_what_is_installed_is_not_installed_again(folder: Path) -> None:
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", ".runs", ".installed"):
        (folder / ".venv" / name).touch()
    assert "install" not in dry_run(folder, "demo", "lint")


def test_an_interpreter_of_the_users_gets_nothing_installed(folder: Path) -> None:
    for target in ("demo", "lint"):
        assert "pip install" not in dry_run(folder, target, "PYTHON=python3")


@pytest.mark.parametrize(("target", "long_runs"), [("test", False), ("test-full", True)])
def test_every_test_is_run_by_exactly_one_command(folder: Path, target: str, long_runs: bool) -> None:
    chosen = [Expression.compile(text) for text in re.findall(r'pytest .*-m "([^"]+)"', dry_run(folder, target))]
    markers = ("long", "distributed", "slurm", "browser", "gpu")
    for held in product((True, False), repeat=len(markers)):
        has = dict(zip(markers, held, strict=True))
        runs = [expression for expression in chosen if expression.evaluate(lambda name, **_: has[name])]  # noqa: B023 - called at once
        assert len(runs) == (long_runs or not has["long"]), has


def test_files_run_side_by_side_and_those_for_gpus_alone(folder: Path) -> None:
    beside, alone = [line for line in dry_run(folder, "test", "WORKERS=5").splitlines() if " -m pytest " in line]
    assert "--require=distributed,slurm,browser --numprocesses=5 " in beside
    assert "--numprocesses" not in alone
    assert " tests/gpu " in alone


def test_a_process_of_the_tests_keeps_what_python_has_compiled(folder: Path) -> None:
    (folder / "shown.mk").write_text("include Makefile\nshown:\n\t@env\n")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    shown = subprocess.run(["make", "-f", "shown.mk", "shown"], cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    assert "PYTHONDONTWRITEBYTECODE" not in shown
