"""Traces the layers of a family without a table once, in a process of its own; then reads the user's cache."""

import json
import sys
import tempfile
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from conf.traces import POWERS, REQUEST, TRACES, TraceSettings
from launcher.errors import ConfigError
from launcher.facts.model.census import cause_of, default_cache, digest, finished, kept_answer
from launcher.facts.model.trace import Trace, TracedMoment, Untraceable

FORM = 3  # of what a trace says; counted up where the meaning of a field changes, or what is traced

BUILDERS = ("torch", "peft", "bitsandbytes", "hqq")  # beside transformers, whose version the digest has


def layer_trace(architecture: str, settings: TraceSettings) -> Trace | Untraceable:
    """Of the model that transformers builds from `architecture`, the text of its config.json.

    Raises:
        ConfigError: where torch or transformers fails beyond that.
    """
    return kept_trace(architecture, settings, default_cache())


@cache
def kept_trace(architecture: str, settings: TraceSettings, folder: Path) -> Trace | Untraceable:
    found = kept_answer(trace_file(architecture, settings, folder), parsed, lambda: process(architecture, settings))
    if found is None:
        raise ConfigError(
            f"The layers of model_type={json.loads(architecture).get('model_type')} were traced, but the trace lacks fields. "
            "This is a bug. Please report it."
        )
    return found


def trace_file(architecture: str, settings: TraceSettings, folder: Path) -> Path:
    """Where a trace is kept: by the architecture, the settings, the libraries and the form of the answer."""
    names = ",".join(field.name for kind in (Trace, TracedMoment) for field in fields(kind))
    asked = json.dumps(asdict(settings), sort_keys=True)
    built = " ".join(f"{name} {installed(name)}" for name in BUILDERS)
    return folder / f"trace-{digest(f'{FORM} {names} {POWERS} {built} {asked} {architecture}')}.json"


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def parsed(path: Path) -> Trace | Untraceable | None:
    """None: cut short, or written by hand."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "refused" in values:
            return Untraceable(str(values["refused"]))
        last_state, buffers, kept = int(values.pop("last_state")), int(values.pop("buffers")), tuple(values.pop("kept"))
        return Trace(last_state, buffers, kept, **{name: moments(value) for name, value in values.items()})
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def moments(values: list[dict[str, Any]]) -> tuple[TracedMoment, ...]:
    return tuple(TracedMoment(**{**each, "bytes": tuple(each["bytes"])}) for each in values)


def process(architecture: str, settings: TraceSettings) -> str:
    """What `python -m trainers.tracing` writes."""
    name = json.loads(architecture).get("model_type")
    print(f"Tracing a step of {name}, which no table here describes: once for these settings, some ten seconds ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="regimen-trace-") as folder:
        request = {"architecture": json.loads(architecture), "settings": asdict(settings)}
        (Path(folder) / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        done = finished("trainers.tracing", folder, f"Tracing model_type={name}")
        if done.returncode == 0:
            return (Path(folder) / TRACES).read_text(encoding="utf-8")
    raise ConfigError(
        f"The layers of model_type={name} are not described by a table here and must be traced, which failed: {cause_of(done)}. "
        "Plan where torch and transformers are installed."
    )
