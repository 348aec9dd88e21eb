"""Why a rank ended: an exception to the exit code and the sentence that the launcher shows."""

import errno
import traceback

from trainers.errors import DataError

CONFIG, DATA, DISK, OUT_OF_MEMORY, NOT_A_NUMBER, BUG = 2, 4, 74, 80, 81, 1


class NotANumber(ValueError):
    """The loss is NaN or infinite."""


def cause_of(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of whatever ended this rank."""
    if isinstance(error, DataError):
        return DATA, str(error)
    if isinstance(error, NotANumber):
        return NOT_A_NUMBER, str(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, out_of_memory_sentence(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK, f"The disk is full while writing {error.filename or 'a file'}. Free space, then resume: what was committed is intact."
    if isinstance(error, ValueError) and is_ours(error):
        return CONFIG, str(error)
    return BUG, f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def is_ours(error: BaseException) -> bool:
    """Whether the exception was raised in our own code: a library's ValueError is not a message for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "/trainers/" in frames[-1].filename and "site-packages/" not in frames[-1].filename.rsplit("/trainers/", 1)[0].rsplit("/", 1)[-1]


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def out_of_memory_sentence(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "host memory is exhausted")
    return (
        f"Out of memory: {first} Lower training.micro_batch (training.effective_batch keeps the batch), set training.gradient_checkpointing=true, "
        "or see what `regimen plan` proposes."
    )
