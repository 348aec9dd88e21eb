"""Fixtures and options shared by all tests."""

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require", default="", help="markers, separated by commas, whose tests fail instead of skipping")
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing with them")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist=loadfile a file goes to one worker, and all of tests/slurm to one: clusters of one machine number their jobs alike, and the batch
    script makes the ranks' port of that number."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneCluster(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "tests/slurm" if file.startswith("tests/slurm/") else file

    return OneCluster(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """gpu(count) skips itself; torch is imported only where such a test was collected."""
    for item in items:
        marker = item.get_closest_marker("gpu")
        if marker is not None:
            count = int(marker.args[0])
            item.add_marker(pytest.mark.skipif(cuda_devices() < count, reason=f"needs {count} CUDA devices; here are {cuda_devices()}"))


def pytest_collection_finish() -> None:
    """What the test files have imported stays: the collector, which accelerate calls at each start of a training, need not walk through it again."""
    gc.collect()
    gc.freeze()


def cuda_devices() -> int:
    import torch

    return torch.cuda.device_count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A skipped test whose marker --require names has failed: what was to be shown was not."""
    report = yield
    markers = {marker.name for marker in item.iter_markers()}
    required = set(str(item.config.getoption("--require")).split(",")) & markers
    if report.skipped and required and "gpu" not in markers:  # no option makes a GPU appear
        report.outcome = "failed"
        report.longrepr = f"--require={','.join(sorted(required))}: {item.nodeid} was skipped: {skip_reason(report)}"
    return report


def skip_reason(report: pytest.TestReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs that tests start are not noted among the user's own (launcher/launch/places.py)."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real demo data sets beside the checkout; tests that use them skip where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real demo data sets are not beside this checkout")
    return SHARED_DATA


@pytest.fixture
def site_environment() -> dict[str, str]:
    """The environment of a child process that finds the packages of this checkout, and what this process finds by PYTHONPATH."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))}


@pytest.fixture
def python() -> str:
    return sys.executable


@pytest.fixture(scope="session")
def cells() -> ModuleType:
    """tests/distributed/cells.py: cells of a training matrix, run in few processes."""
    return load_beside("distributed/cells.py")


def load_beside(relative: str) -> ModuleType:
    """A module of the test folder that is no test itself."""
    path = Path(__file__).parent / relative
    spec = importlib.util.spec_from_file_location(f"regimen_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
