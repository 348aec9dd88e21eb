"""Runs of a tiny model, as the tests of the stages make them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/trainers/stages/conftest.py."""
    path = Path(__file__).parent.parent / "stages" / "conftest.py"
    spec = importlib.util.spec_from_file_location("regimen_tests_tiny_runs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
