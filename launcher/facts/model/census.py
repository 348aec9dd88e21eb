"""ModelFacts of an architecture without a table: transformers builds it without storage, in a process of its own, and its modules are counted."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from conf import exit_codes
from conf.run_dir import write_text_atomically
from launcher.command import HUB_SECRETS, SECRETS, TRACKER_SECRETS, Command
from launcher.errors import ConfigError
from launcher.facts.model.facts import ModelFacts, ModuleKind
from launcher.facts.model.families import traits_of

FORM = 3  # of what a count says; counted up where the meaning of a field changes
CONFIG, CENSUS = "config.json", "census.json"
FORCED = (("PYTHONSAFEPATH", "1"), ("CUDA_VISIBLE_DEVICES", ""), ("HF_HUB_OFFLINE", "1"))
Answer = TypeVar("Answer")
SECONDS = 600  # imports and the largest models need less than thirty on a machine that does nothing else


def counted_facts(architecture: Mapping[str, Any], source: str, cache: Path | None = None) -> ModelFacts:
    """As `model_facts`, for any architecture of the installed transformers; counted once for each config.json and version.

    Args:
        cache: a folder; by default the user's cache folder.

    Raises:
        ConfigError: where transformers is absent, does not know the architecture, or refuses its values.
    """
    text = json.dumps(architecture, sort_keys=True)
    model_type = architecture.get("model_type")
    facts = kept_answer((cache or default_cache()) / f"{digest(text)}.json", parsed, lambda: census(text, model_type, source))
    if facts is None:
        raise ConfigError(f"{source}: model_type={model_type} was counted, but the counts lack fields. This is a bug. Please report it.")
    return replace(facts, architecture=text)


def kept_answer(kept: Path, parsed: Callable[[Path], Answer], ask: Callable[[], str]) -> Answer:
    """What the file `kept` says, which a process is asked for where it says nothing yet; None where the process too says nothing whole."""
    found = parsed(kept) if kept.is_file() else None
    if found is not None:
        return found
    answer = ask()
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(kept, answer)
    return parsed(kept)


def default_cache() -> Path:
    return Path.home() / ".cache" / "regimen" / "census"


def digest(text: str) -> str:
    """Of the architecture and the library that builds it."""
    try:
        builder = version("transformers")
    except PackageNotFoundError:
        builder = "none"
    names = ",".join(field.name for field in (*fields(ModelFacts), *fields(ModuleKind)))
    return hashlib.sha256(f"{FORM}\n{builder}\n{names}\n{text}".encode()).hexdigest()


def parsed(path: Path) -> ModelFacts | None:
    """None: cut short, or written by hand."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        modules = tuple(ModuleKind(**{**module, "layers": tuple(module["layers"])}) for module in values.pop("modules"))
        return ModelFacts(**{**values, "modules": modules, "traits": traits_of(values["family"])})
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def census(text: str, name: object, source: str) -> str:
    """What `python -m trainers.census` writes."""
    print(f"Counting the modules of {name}, which has no table here: once for this architecture, some ten seconds ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="regimen-census-") as folder:
        (Path(folder) / CONFIG).write_text(text, encoding="utf-8")
        done = finished("trainers.census", folder, f"{source}: counting model_type={name}")
        if done.returncode == 0:
            return (Path(folder) / CENSUS).read_text(encoding="utf-8")
    cause = cause_of(done)
    if done.returncode == exit_codes.CONFIG:  # transformers does not know the architecture, or refuses its values
        raise ConfigError(
            f"{source}: model_type={name} has no table here, and transformers cannot build it: {cause}. Use an architecture that transformers "
            "knows as a causal language model (code that comes with a model is never run), fix its config.json, or add a row to FAMILIES in "
            "launcher/facts/model/families.py."
        )
    raise ConfigError(
        f"{source}: model_type={name} has no table here and must be counted by transformers, which failed: {cause}. "
        "Plan where torch and transformers are installed."
    )


def finished(module: str, folder: str, what: str) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE FOLDER` with neither secrets, GPUs nor network.

    Raises:
        ConfigError: where it does not end.
    """
    command = Command((sys.executable, "-m", module, folder), (), FORCED, (*SECRETS, *HUB_SECRETS, *TRACKER_SECRETS))
    try:
        return subprocess.run(command.argv, env=command.environment(os.environ), capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{what} took more than {SECONDS} s and was ended. Plan on a machine that has time for it.") from error


def cause_of(done: subprocess.CompletedProcess[str]) -> str:
    return next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
