"""The tracers beside these tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tracer() -> ModuleType:
    load_beside("gpu_kernels")
    load_beside("fused_layers")
    return load_beside("tracer")


@pytest.fixture(scope="session")
def oracle(tracer: ModuleType) -> ModuleType:
    return load_beside("test_oracle")


@pytest.fixture(scope="session")
def stage_tracer() -> ModuleType:
    return load_beside("stage_tracer")


def load_beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"regimen_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


load_beside("traced_matrix")  # its cells name tests, so it is there before they are collected
