"""Imports the libraries of a run, and not those that other libraries would import only because they are installed.

CPU seconds until all was imported that an SFT run of 4-bit QLoRA needs, on two busy cores (2026-11-30): 7.9 as it comes, like a bare import of
trl.trainer.sft_trainer; 6.1 without HQQ, which brings torch's compiler with it, without scipy, and without collections of garbage; 5.0 where
bitsandbytes compiles nothing either. DeepSpeed, which accelerate imports later, took 1.0 more.
"""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from conf.schema import Qlora, Run, Zero
from conf.stages import stage_row


@contextmanager
def only_what_is_needed(*runs: Run) -> Iterator[None]:
    """Around the first import of torch and transformers in the process that trains these runs.

    What is imported stays: it is left to itself by all later collections, which would look through half a million objects each.
    """
    for name in set.intersection(*(set(left_out(run)) for run in runs)):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # to importlib: there is no such module
    gc.disable()
    try:
        import_uncompiled("bitsandbytes")
        import_models_read_once()
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


def import_after_all(name: str) -> ModuleType:
    """Import a module, also of a package that was left out: a checkpoint that another sharding saved may name what this run does not use."""
    package = name.partition(".")[0]
    if sys.modules.get(package, sys) is None:
        del sys.modules[package]
    return importlib.import_module(name)


def import_uncompiled(name: str) -> None:
    """Import a module that has torch compile functions of its own, which would import torch's compiler: 1 to 2 s for what no run here may call.

    Each of them is compiled when it is called, as torch.compile itself would then do. bitsandbytes 0.50 has such functions for devices without
    kernels, and DeepSpeed 0.19 one for Muon.
    """
    import torch

    at_once = torch.compile
    torch.compile = when_called(at_once)
    try:
        importlib.import_module(name)
    finally:
        torch.compile = at_once


def when_called(compile_now: Callable[..., Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    """As `compile_now`, but a function is given to it when it is called for the first time."""

    def compile_later(function: Callable[..., Any], **keywords: Any) -> Callable[..., Any]:
        compiled = cache(lambda: compile_now(function, **keywords))
        return lambda *arguments, **named: compiled()(*arguments, **named)

    return compile_later


def import_models_read_once() -> None:
    """Spare the second of two readings of all the files of transformers' models, which takes 0.4 s.

    transformers reads them for its own names, and again for those of transformers.models. The second time it is given what the first one found.
    A version of transformers that does not keep that reads the files twice, as it does by itself.
    """
    import transformers
    from transformers.utils import import_utils

    read = import_utils.define_import_structure
    folder = Path(transformers.__file__).parent / "models"

    def told(module_path: str, prefix: str | None = None) -> Any:
        return without_prefix(read(folder, prefix=folder.name), folder.name) if Path(module_path).parent == folder else read(module_path, prefix)

    import_utils.define_import_structure = told
    try:
        importlib.import_module("transformers.models")
    finally:
        import_utils.define_import_structure = read


def without_prefix(found: Mapping[Any, Mapping[str, Any]], prefix: str) -> dict[Any, dict[str, Any]]:
    """What lies below that package, named from there: transformers has added its own other modules to it."""
    below = f"{prefix}."
    return {needs: {name.removeprefix(below): names for name, names in modules.items() if name.startswith(below)} for needs, modules in found.items()}


def import_losses_without_scipy() -> None:
    """transformers imports the losses of object detection with all others, and for one function in them all of scipy.optimize."""
    from transformers import utils

    found = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        import transformers.loss.loss_utils  # noqa: F401
    finally:
        utils.is_scipy_available = found
