"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real demo data sets beside the checkout; tests that use them skip where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real demo data sets are not beside this checkout")
    return SHARED_DATA


@pytest.fixture
def site_environment() -> dict[str, str]:
    """The environment of a child process that finds the packages of this checkout."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def python() -> str:
    return sys.executable
