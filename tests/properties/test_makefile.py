"""What `make` would do, by its dry run: the demo installs what runs need, and the tests what they need besides."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is absent")


def dry_run(folder: Path, *arguments: str) -> str:
    """The commands for a bare clone."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    return subprocess.run(["make", "--dry-run", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_demo_installs_only_what_runs_need(tmp_path: Path) -> None:
    commands = dry_run(tmp_path, "demo")
    assert "--editable .\n" in commands
    assert "[dev]" not in commands
    assert commands.splitlines()[-1].endswith("-m launcher train recipe=demo")


def test_the_tests_need_more(tmp_path: Path) -> None:
    commands = dry_run(tmp_path, "test")
    assert "--editable '.[dev]'" in commands
    assert commands.index("--editable .\n") < commands.index("'.[dev]'") < commands.index("ruff format --check")


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("bin/python", ".runs", ".installed"):
        (tmp_path / ".venv" / name).touch()
    done = subprocess.run(["make", "--dry-run", "demo", "lint"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "install" not in done


def test_an_interpreter_of_the_users_gets_nothing_installed(tmp_path: Path) -> None:
    for target in ("demo", "lint"):
        assert "pip install" not in dry_run(tmp_path, target, "PYTHON=python3")
