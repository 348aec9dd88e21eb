"""The tracer beside these tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tracer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regimen_tests_tracer", Path(__file__).with_name("tracer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
