"""Imports the libraries of a run, and not those that other libraries would import only because they are installed.

CPU seconds until trainers/run.py and all that an SFT run needs were imported, on two busy cores (2026-11-30): 9.7 as it comes; 7.1 without HQQ, which
brings torch's compiler with it, without scipy and without garbage collection; 5.6 without DeepSpeed too.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from conf.schema import Qlora, Run, Zero
from conf.stages import stage_row


@contextmanager
def only_what_is_needed(run: Run) -> Iterator[None]:
    """Around the first import of torch and transformers.

    What is imported stays: it is left to itself by all later collections, which would look through half a million objects each.
    """
    for name in left_out(run):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # to importlib: there is no such module
    gc.disable()
    try:
        import_losses_without_scipy()
        yield
    finally:
        gc.freeze()
        gc.enable()


def left_out(run: Run) -> tuple[str, ...]:
    """Packages that this process cannot import. Of a stage that calls functions of the user's nothing is left out, since those may import them."""
    if stage_row(run.stage.name).learns == "own answers":
        return ()
    two_bits = isinstance(run.regime, Qlora) and run.regime.bits == 2
    return (*(() if two_bits else ("hqq",)), *(() if isinstance(run.sharding, Zero) else ("deepspeed",)))


def import_losses_without_scipy() -> None:
    """transformers imports the losses of object detection with all others, and for one function in them all of scipy.optimize."""
    from transformers import utils

    found = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        import transformers.loss.loss_utils  # noqa: F401
    finally:
        utils.is_scipy_available = found
