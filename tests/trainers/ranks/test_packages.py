"""What is not installed is looked for once, and not in every step."""

import inspect
import sys
from collections.abc import Sequence

import pytest
from accelerate.utils import imports, is_lomo_available

from trainers.ranks.packages import look_once_for_packages


class Counting:
    """A finder that finds nothing and counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        self.asked.append(name)


def test_a_package_that_is_missing_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_is_package_available", inspect.unwrap(imports._is_package_available))  # other tests call it too
    counting = Counting()
    monkeypatch.setattr(sys, "meta_path", [counting, *sys.meta_path])
    before = [is_lomo_available() for _ in range(3)]
    assert counting.asked == ["lomo_optim"] * 3
    look_once_for_packages()
    after = [is_lomo_available() for _ in range(3)]
    assert counting.asked == ["lomo_optim"] * 4
    assert after == before
