"""Every way a rank may end, to the code and the sentence that the user sees."""

import errno
from collections.abc import Callable

import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.distributed import DistBackendError

from trainers.arguments import sharding_arguments
from trainers.errors import DataError, RankZeroFailed
from trainers.ranks.causes import NotANumber, cause_of


def caught(act: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - whatever comes is the subject
        act()
    return raised.value


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("a.json, record 3: no answer"), 4, "a.json, record 3: no answer"),
        (NotANumber("loss is nan at step 3"), 81, "loss is nan at step 3"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), 80, "Tried to allocate 2 GiB. Lower training.micro_batch"),
        (MemoryError(), 80, "host memory is exhausted. Lower training.micro_batch"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/a"), 74, "The disk is full while writing /runs/a."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 74, "The disk is full while writing a file."),
        (OSError(errno.EACCES, "Permission denied", "/runs/a"), 1, "PermissionError"),
        (RankZeroFailed("rank 0 failed while committing step 3"), 76, "rank 0 failed while committing step 3"),
        (DistBackendError("NCCL error: remote process exited"), 76, "remote process exited"),
        (RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:4711"), 76, "Connection closed by peer"),
        (
            RuntimeError("kthvalue CUDA does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'."),
            2,
            "training.deterministic=true: kthvalue CUDA does not have a deterministic implementation. Set training.deterministic=false.",
        ),
        (RuntimeError("shape mismatch\nsecond line"), 1, "RuntimeError: shape mismatch"),
        (KeyError("a"), 1, "KeyError: 'a'"),
        (AssertionError(), 1, "AssertionError: "),
        (KeyboardInterrupt(), 1, "KeyboardInterrupt: "),
    ],
)
def test_every_end_has_its_code_and_sentence(error: BaseException, code: int, said: str) -> None:
    found, sentence = cause_of(error)
    assert found == code
    assert said in sentence
    assert "\n" not in sentence


def test_a_tracker_that_refuses_is_a_configuration_error_that_names_its_key() -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is an extra")
    code, sentence = cause_of(wandb.errors.UsageError("No API key configured. Use `wandb login` to log in."))
    assert code == 2
    assert sentence.startswith("tracking=wandb: No API key configured.")
    assert "tracking=none" in sentence


def test_host_memory_that_torch_is_refused_is_out_of_memory() -> None:
    code, sentence = cause_of(caught(lambda: torch.empty(10**15)))
    assert code == 80
    assert "you tried to allocate 4000000000000000 bytes" in sentence


def test_a_value_error_of_our_own_code_is_a_configuration_error() -> None:
    def refuse() -> None:
        raise ValueError("regime.targets names no module")

    ours = compile("def refuse():\n    raise ValueError('regime.targets names no module')\n", sharding_arguments.__code__.co_filename, "exec")
    names: dict[str, Callable[[], None]] = {}
    exec(ours, names)
    assert cause_of(caught(names["refuse"])) == (2, "regime.targets names no module")
    assert cause_of(caught(refuse)) == (1, "ValueError: regime.targets names no module")


def test_a_value_error_of_a_library_is_a_bug() -> None:
    assert cause_of(caught(lambda: torch.zeros(2).view("a")))[0] == 1
    assert cause_of(caught(lambda: int("a"))) == (1, "ValueError: invalid literal for int() with base 10: 'a'")


@pytest.mark.parametrize("folder", ["/venv/lib/site-packages/other/trainers", "/home/user/trainers"])
def test_another_package_of_our_name_is_a_library(folder: str) -> None:
    names: dict[str, Callable[[], None]] = {}
    exec(compile("def fail():\n    raise ValueError('x')\n", f"{folder}/model.py", "exec"), names)
    assert cause_of(caught(names["fail"])) == (1, "ValueError: x")


def test_the_data_error_of_a_data_worker_is_told_without_its_traceback() -> None:
    wrapped = []
    try:
        raise DataError("a.jsonl, line 2: bad\n  more")
    except DataError:
        wrapped.append(ExceptionWrapper(where="in DataLoader worker process 0"))
    assert cause_of(caught(wrapped[0].reraise)) == (4, "a.jsonl, line 2: bad\n  more")
