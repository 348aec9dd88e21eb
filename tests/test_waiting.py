"""Waits of the tests: through waiting.py alone, and given up only after many times the usual."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import waiting
from tests.waiting import PATIENCE, wait_until

TESTS = Path(__file__).parent
A_LIMIT_OF_ITS_OWN = re.compile(r"timeout=\d|seconds: float = \d|time\.monotonic\(\) [+<>]|\.join\(\d|pytest\.mark\.timeout\((?!\d{5})")
SLOWER = 10  # than two idle cores, at least


def test_the_first_true_answer_is_returned() -> None:
    answers = iter((0, None, "third"))
    assert wait_until(lambda: next(answers), "answer") == "third"


def test_what_did_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.1)
    with pytest.raises(AssertionError, match="within 0 s there was no first step"):
        wait_until(lambda: False, "first step")


def test_nothing_more_is_expected_of_a_process_that_ended() -> None:
    process = subprocess.Popen((sys.executable, "-c", "raise SystemExit(7)"))
    with pytest.raises(AssertionError, match=r"there is no first step: .* ended with exit code 7"):
        wait_until(lambda: False, "first step", process)
    assert wait_until(lambda: True, "last word", process)


def test_no_test_has_a_limit_of_its_own() -> None:
    files = [path for path in TESTS.rglob("*.py") if path.name not in ("waiting.py", "test_waiting.py", "lab.py")]  # lab.py is given PATIENCE
    found = {str(path.relative_to(TESTS)): A_LIMIT_OF_ITS_OWN.findall(path.read_text(encoding="utf-8")) for path in files}
    assert len(files) > 100
    assert {name: limits for name, limits in found.items() if limits} == {}


def test_patience_is_many_times_the_usual_and_pytest_waits_longer_still() -> None:
    options = tomllib.loads((TESTS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert PATIENCE >= SLOWER * 60
    assert options["timeout"] >= 3 * PATIENCE
