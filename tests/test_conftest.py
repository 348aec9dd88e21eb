"""The options that this suite adds to pytest."""

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parent / "conftest.py"
SUITE = """
import pytest

@pytest.mark.distributed
def test_needs_a_compiler():
    pytest.skip("no g++ here")

@pytest.fixture
def cluster():
    pytest.skip("no daemons")

@pytest.mark.slurm
def test_needs_a_cluster(cluster):
    pass

@pytest.mark.slurm
@pytest.mark.gpu(1000)
def test_needs_gpus():
    raise AssertionError("must not run here")

def test_plain():
    pytest.skip("unmarked")
"""


def run_suite(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    distributed\n    slurm\n    gpu(count)\n")
    argv = (sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options, str(folder))
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def test_without_require_everything_skips_with_its_reason(tmp_path: Path) -> None:
    done = run_suite(tmp_path)
    assert done.returncode == 0
    assert "4 skipped" in done.stdout
    assert "needs 1000 CUDA devices" in done.stdout


def test_a_skipped_test_that_is_required_fails_with_its_reason(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "--require=distributed,slurm")
    assert done.returncode == 1
    assert "--require=distributed: test_suite.py::test_needs_a_compiler was skipped: Skipped: no g++ here" in done.stdout
    assert "--require=slurm: test_suite.py::test_needs_a_cluster was skipped: Skipped: no daemons" in done.stdout
    assert "1 failed, 2 skipped, 1 error" in done.stdout


WORKER = """
import os

import pytest

@pytest.mark.parametrize("number", range(3))
def test_here(number):
    with open("workers.txt", "a") as file:
        file.write(f"{__file__} {os.environ['PYTEST_XDIST_WORKER']}\\n")
"""


def test_all_files_of_slurm_go_to_one_worker_and_each_other_file_to_one(tmp_path: Path) -> None:
    """Many small files: without the grouping, those of Slurm would go to both."""
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    for name in (*(f"tests/slurm/test_{letter}.py" for letter in "abcd"), *(f"tests/other/test_{letter}.py" for letter in "efgh")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(WORKER)
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--numprocesses=2", "--dist=loadfile", "tests")
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "24 passed" in done.stdout, done.stdout + done.stderr
    ran = [line.split() for line in (tmp_path / "workers.txt").read_text().splitlines()]
    assert len({worker for file, worker in ran if "/slurm/" in file}) == 1
    assert len({worker for _, worker in ran}) == 2
    assert len(set(map(tuple, ran))) == 8
