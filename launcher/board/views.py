"""What the pages show of runs, as data: read from run folders, in the words of the command line."""

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import journal
from conf.committed import committed, damaged, read_manifest
from conf.exit_codes import EXIT_CODES, OUT_OF_MEMORY
from conf.records import is_step, parsed
from conf.run_dir import RunDir
from conf.words import BETWEEN, duration
from launcher.board import files
from launcher.board.actions import command_of, words_of, words_of_checkpoint
from launcher.board.index import id_of, odd_files
from launcher.launch import status
from launcher.launch.progress import expected_of, facts
from launcher.launch.status import ACTIVE, RunStatus
from launcher.words import age, gib

TAIL = 16 * 2**10  # bytes of progress.jsonl that hold its last step
EVENTS = 500  # newest ones that are shown
CAN_GO_ON = ("stopped", "failed", "dead")
MEMORY_ROWS = ("allocated", "nvml", "host")
PER_PAGE = 100


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    id: str
    name: str
    path: str
    state: str
    step: int
    of: int
    training: str
    evaluation: str
    age: str
    remark: str


@dataclass(frozen=True)
class Action:
    name: str
    command: str


@dataclass(frozen=True)
class Head:
    """What stands above everything else of a run."""

    row: Row
    active: bool
    measures: str
    left: str  # time left in words, or empty
    message: str
    cause: str  # what the exit code means; empty while there is none
    out_of_memory: bool
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class CheckpointRow:
    name: str
    size: str = ""
    ranks: int = 0
    age: str = ""
    fault: str | None = None  # why its manifest cannot be used; empty: it was set aside
    export: str = ""  # the command


def rows(statuses: Sequence[RunStatus]) -> list[Row]:
    return [row_of(now) for now in statuses]


def row_of(now: RunStatus) -> Row:
    path, state, _, training, evaluation, ago, remark = status.row(now)
    name = f"{now.run_dir.path.parent.name}/{now.run_dir.path.name}"
    return Row(id_of(now.run_dir), name, path, state, now.step, now.of, training, evaluation, ago, remark)


def chosen(found: Sequence[Row], words: str) -> list[Row]:
    """The rows that hold every word of the filter, in capitals or not."""
    wanted = words.lower().split()
    return [row for row in found if all(word in f"{row.path} {row.state} {row.remark}".lower() for word in wanted)]


def head_of(now: RunStatus, output: Path | None) -> Head:
    run_dir, active = now.run_dir, now.state in ACTIVE
    readable = not odd_files(run_dir)
    last = last_step(run_dir) if readable else {}
    left = duration(float(last["eta_seconds"])) if active and "eta_seconds" in last else ""
    return Head(
        row_of(now),
        active,
        BETWEEN.join(facts({**now.measured, **last}, expected_of(run_dir))) if readable else "",
        left,
        "" if now.state == "finished" and not now.damaged else status.remark(now),
        next((f"{code.name}: {code.meaning}" for code in EXIT_CODES if code.code == now.exit_code), ""),
        now.exit_code == OUT_OF_MEMORY,
        tuple(Action(name, command_of(words_of(name, run_dir, output))) for name in possible(now)),
    )


def possible(now: RunStatus) -> tuple[str, ...]:
    """What may be done with a run. Whether it succeeds, the command decides again."""
    if now.state in ACTIVE:
        return ("stop",)
    going_on = ("resume",) if now.state in CAN_GO_ON else ("export",) if now.state == "finished" else ()
    return (*going_on, *(("delete",) if now.state != "unknown" else ()))


def last_step(run_dir: RunDir) -> dict[str, Any]:
    """The last line of progress.jsonl that training wrote; empty where there is none."""
    end = files.read_plain(run_dir.progress, TAIL)
    lines = end.text.split("\n") if end else []
    entries = (parsed(line.encode(), is_step) for line in reversed(lines))
    return next((entry for entry in entries if entry is not None and "loss" in entry), {})


def checkpoints(run_dir: RunDir) -> list[CheckpointRow]:
    """Newest first. Whether their files are whole, a resume checks byte by byte; here their manifests alone are read."""
    set_aside = [CheckpointRow(path.name, fault="") for path in damaged(run_dir)]
    return [*map(checkpoint_row, committed(run_dir)), *set_aside]


def checkpoint_row(path: Path) -> CheckpointRow:
    try:
        manifest, made = read_manifest(path), age(time.time() - path.stat().st_mtime)
    except (OSError, ValueError) as error:
        return CheckpointRow(path.name, fault=str(error))
    command = command_of(words_of_checkpoint(RunDir(path.parent.parent), path.name))
    return CheckpointRow(path.name, gib(manifest.size), manifest.world, made, export=command)


def events(run_dir: RunDir) -> list[dict[str, str]]:
    """What happened to the run, newest first, in the words of `regimen status RUN`."""
    found = journal.events(run_dir)[-EVENTS:]
    return [dict(zip(("time", "words"), line.split("  ", 1), strict=True)) for line in reversed(journal.lines(found))]


def memory(run_dir: RunDir) -> dict[str, Any]:
    """Predicted and measured bytes, as texts: of memory.json once the run has ended, before that the prediction alone."""
    report, plan = read_json(run_dir.memory), read_json(run_dir.plan)
    try:
        compared = report["compared"] if report else {}
        phases = [pair_row(name, pair) for name, pair in compared.get("phases", {}).items()]
        whole = [pair_row(name, compared[name]) for name in MEMORY_ROWS if name in compared]
        predicted = [{"name": name, "predicted": gib(plan["memory"][name])} for name in MEMORY_ROWS if plan and plan["memory"].get(name)]
        return {"rows": [*whole, *phases], "predicted": predicted, "sentence": report["sentence"] if report else "", "terms": terms(plan)}
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):
        return {"rows": [], "predicted": [], "sentence": f"{run_dir.memory.name} or {run_dir.plan.name} is damaged.", "terms": []}


def pair_row(name: str, pair: dict[str, Any]) -> dict[str, str]:
    return {"name": name, "predicted": gib(pair["predicted"]), "measured": gib(pair["measured"]), "error": f"{pair['error']:+.1%}"}


def terms(plan: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The terms of the predicted peak, the largest first, each with its share of the peak."""
    if not plan:
        return []
    phase = plan["memory"]["phases"][plan["memory"]["peak"]]
    found = sorted(((name, size) for name, size in phase["terms"].items() if size), key=lambda term: -term[1])
    return [{"name": name, "size": gib(size), "percent": round(100 * size / phase["bytes"], 1)} for name, size in found]


def read_json(path: Path) -> dict[str, Any] | None:
    found = files.read_plain(path)
    if found is None or found.left_out:
        return None
    try:
        values = json.loads(found.text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def plan_of(run_dir: RunDir) -> dict[str, Any]:
    """What was decided before the start: command, environment, checks, and the complete configuration."""
    plan, recorded = read_json(run_dir.plan) or {}, files.read_plain(run_dir.run_yaml)
    try:
        environment = [f"{name}={value}" if value is not None else f"without {name}" for name, value in plan.get("environment", {}).items()]
        checks = [
            {"name": check["rule"], "passed": check["passed"], "words": check["sentence"]} for check in plan.get("verdict", {}).get("checks", [])
        ]
        argv = shlex.join(plan.get("argv", []))
    except (KeyError, TypeError, AttributeError):
        environment, checks, argv = [], [], f"{run_dir.plan.name} is damaged."
    return {"argv": argv, "environment": environment, "checks": checks, "recorded": recorded.text if recorded else ""}
