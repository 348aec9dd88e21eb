"""Why a rank ended: an exception to the exit code and the sentence that the launcher shows."""

import pickle
import traceback
from pathlib import Path

from conf.exit_codes import BUG, CONFIG, DATA, DISK, LOST_PEER, NOT_A_NUMBER, OUT_OF_MEMORY, SAVED, UNSAFE
from conf.reserve import FULL
from trainers.errors import NOTHING_TO_SAVE, DataError, Kept, RankZeroFailed, Stopped, UnsafeFile
from trainers.ranks.determinism import NO_FORM

# torch's writer of files (caffe2/serialize/inline_container.cc) where a write stored less than it was given
CUT_SHORT = ("PytorchStreamWriter failed writing file", "unexpected pos ")
PACKAGE = Path(__file__).resolve().parents[1]  # trainers


class NotANumber(ValueError):
    """The loss is NaN or infinite."""


class NoRoom(RuntimeError):
    """The disk has too little room for what is saved next."""


class OutOfMemory(RuntimeError):
    """Memory is exhausted, and the message says in which step and by what."""


def cause_of(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of whatever ended this rank."""
    if isinstance(error, Stopped):
        signalled = "This rank was signalled before its first step, because another rank has ended or the job is being ended."
        return (SAVED, NOTHING_TO_SAVE) if error.asked else (LOST_PEER, signalled)
    if isinstance(error, Kept):
        return SAVED, str(error)
    if isinstance(error, DataError):
        return DATA, without_traceback(error)
    if isinstance(error, UnsafeFile):
        return UNSAFE, str(error)
    if isinstance(error, pickle.UnpicklingError):
        return UNSAFE, f"A state could not be loaded without running code: {refused_by_torch(error)}. Nothing of it was run."
    if isinstance(error, NotANumber):
        return NOT_A_NUMBER, str(error)
    if isinstance(error, NoRoom):
        return DISK, str(error)
    if isinstance(error, OutOfMemory):
        return OUT_OF_MEMORY, str(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, out_of_memory_sentence(error)
    if is_full_disk(error):
        written = error.filename if isinstance(error, OSError) and error.filename else "a file"
        return DISK, f"The disk is full while writing {written}. Free space, then resume. Committed checkpoints are intact."
    if type(error).__module__.partition(".")[0] == "wandb":
        return CONFIG, f"tracking=wandb: {first_line(error)} Set WANDB_API_KEY, or WANDB_MODE=offline, or set tracking=none."
    if isinstance(error, RuntimeError) and NO_FORM in str(error):
        return CONFIG, f"training.deterministic=true: {first_line(error).partition(NO_FORM)[0].strip()} {NO_FORM}. Set training.deterministic=false."
    if isinstance(error, RankZeroFailed) or is_lost_peer(error):
        return LOST_PEER, f"Another rank has ended: {first_line(error)}"
    if isinstance(error, ValueError) and is_ours(error):
        return CONFIG, str(error)
    return BUG, f"{type(error).__name__}: {first_line(error)}"


def refused_by_torch(error: pickle.UnpicklingError) -> str:
    """The line of torch's long message that names what a pickle would have called."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), first_line(error)).rstrip(".")


def without_traceback(error: BaseException) -> str:
    """The message alone: torch puts the traceback of a data worker before it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    kind = type(error)
    return text.rsplit(f"{kind.__module__}.{kind.__qualname__}: ", 1)[-1].rstrip()


def is_ours(error: BaseException) -> bool:
    """Whether the exception was raised in our own code: a library's ValueError is not a message for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def is_full_disk(error: BaseException) -> bool:
    """Also where a library has made another error of it: what it met lies beneath, or it left no more than a text."""
    from safetensors import SafetensorError

    if isinstance(error, OSError) and error.errno in FULL:
        return True
    if isinstance(error, SafetensorError) and any(f"(os error {number})" in str(error) for number in FULL):  # its text alone has it
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in CUT_SHORT):
        return True
    beneath = error.__cause__ or error.__context__
    return beneath is not None and is_full_disk(beneath)


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's CPU allocator has no class of its own
    return refused or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because a rank at its other end is gone; gloo raises bare RuntimeErrors."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "Connection" in str(error) and "peer" in str(error))


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def out_of_memory_sentence(error: BaseException) -> str:
    first = first_line(error) or "host memory is exhausted."
    return (
        f"Out of memory: {first} Lower training.micro_batch (training.effective_batch keeps the batch), set training.gradient_checkpointing=true, "
        "or see what `regimen plan` proposes."
    )
