"""What the runs under an output folder are doing, read only from their files; batch_job asks Slurm about those that it still has."""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf import journal
from conf.constants import TRAINING
from conf.evaluations import of_final_model
from conf.exit_codes import DONE, SAVED
from conf.records import is_step, read_lines
from conf.run_dir import RunDir
from conf.words import BETWEEN, aligned, columns, in_columns
from launcher.composition.recorded import recorded_run
from launcher.errors import ConfigError, RunLocked
from launcher.launch import lock
from launcher.launch.outcome import outcome_of, read_exits
from launcher.launch.places import in_words, places
from launcher.launch.progress import Doing, Expected, expected_of, measures
from launcher.words import age, first_line, plural

DEPTHS = (2, 3)  # of run folders below a place: NAME/TIME, and those of sweeps
STARTING_SECONDS = 60.0  # from the making of a folder until something works in it or has its lock; starting Python takes one of them
ACTIVE = ("running", "queued", "made")  # states from which a run still goes on by itself
END_STATES = {DONE: "finished", SAVED: "stopped"}


@dataclass(frozen=True)
class RunStatus:
    run_dir: RunDir
    state: str  # running | queued | finished | stopped | failed | dead (no process, no end) | made | unknown (a damaged lock)
    step: int
    of: int
    loss: float | None
    eval_loss: float | None
    updated: float  # seconds since the epoch
    exit_code: int | None
    message: str
    job: str | None = None  # the Slurm job that it waits or runs in, until that job has recorded its end
    doing: str | None = None  # of a run that runs: what it does outside of its steps, and for how long
    shown: tuple[str, ...] = ("loss",)  # what its stage is about, by the names of progress.jsonl
    measured: dict[str, float] = field(default_factory=dict)  # the last value of each of these, in training and in evaluation
    damaged: str = ""  # which of its files could not be read whole


def status_of(run_dir: RunDir) -> RunStatus:
    journalled, progress = read_lines(run_dir.journal, journal.is_event), read_lines(run_dir.progress, is_step)
    history, entries, expected = journalled.entries, progress.entries, expected_of(run_dir)
    made: dict[str, Any] = {"event": "made", "time": run_dir.path.stat().st_mtime}
    last = next((event for event in reversed(history) if event["event"] in journal.TURNS), made)
    newest: dict[str, Any] = entries[-1] if entries else {"step": 0, "of": expected.steps or 0}
    state, code, message = state_of(run_dir, last)
    measured = last_values(entries, expected) | (of_the_kept(run_dir, entries, expected) if state == "finished" else {})
    return RunStatus(
        run_dir, state, newest["step"], total_of(newest, history, expected), measured.get("loss"), measured.get("eval_loss"),
        max(float((history or [made])[-1]["time"]), float(newest.get("time", 0))), code, message, last.get("job"),
        doing_of(run_dir) if state == "running" else None, expected.shown, measured,
        damage({run_dir.journal: journalled.damaged, run_dir.progress: progress.damaged}, [run_dir.plan] if expected.damaged else []),
    )  # fmt: skip


def total_of(newest: Mapping[str, Any], history: Sequence[Mapping[str, Any]], expected: Expected) -> int:
    """How many steps the run has. A start that has made none yet may have given it another length, which only its plan holds."""
    starts = [float(event["time"]) for event in history if event["event"] == journal.Started.event]
    made_none = bool(starts) and float(newest.get("time", 0.0)) < starts[-1]
    return int(expected.steps if made_none and expected.steps is not None else newest["of"])


def damage(lines: Mapping[Path, int], files: Sequence[Path]) -> str:
    """In words; empty where every file was read whole."""
    in_lines = [f"{path.name} is damaged ({plural(count, 'line')} left out)" for path, count in lines.items() if count]
    return ", ".join([*in_lines, *(f"{path.name} is damaged" for path in files)])


def last_values(entries: Sequence[dict[str, Any]], expected: Expected) -> dict[str, float]:
    names = [*expected.shown, *(f"eval_{name}" for name in expected.shown)]
    found = {name: next((entry[name] for entry in reversed(entries) if name in entry), None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def of_the_kept(run_dir: RunDir, entries: Sequence[dict[str, Any]], expected: Expected) -> dict[str, float]:
    """What the evaluation of the final model measured, where that is not the last one (evaluation.best_at_end)."""
    if "best_at_end: true" not in run_dir.run_yaml.read_text(encoding="utf-8", errors="replace"):  # reading a run as a whole takes much longer
        return {}
    try:
        evaluation = recorded_run(run_dir).evaluation
    except ConfigError:
        return {}  # whatever goes on with the run says what is wrong with its run.yaml
    kept = of_final_model([entry for entry in entries if "eval_loss" in entry], evaluation) or {}
    return {name: kept[name] for name in (f"eval_{shown}" for shown in expected.shown) if name in kept}


def doing_of(run_dir: RunDir) -> str | None:
    doing = Doing(run_dir)
    doing.changes()
    return None if doing.now == TRAINING else doing.words()


def state_of(run_dir: RunDir, last: dict[str, Any]) -> tuple[str, int | None, str]:
    if last["event"] == "end":
        code = int(last["exit_code"])
        return END_STATES.get(code, "failed"), code, last["message"]
    if "job" in last:
        return ("running" if last["event"] == "start" else "queued"), None, f"Slurm job {last['job']}"
    try:
        owner = lock.read_owner(run_dir)
    except RunLocked as error:
        return "unknown", None, str(error)
    standing = "dead" if owner is None else lock.standing(run_dir, owner)
    if owner is not None and standing != "dead":
        from_here = "" if standing == "alive" else " (this machine cannot see whether it still runs)"
        return "running", None, f"process {owner.pid} on {owner.host}{from_here}"
    if read_exits(run_dir):  # nobody supervised it: ranks that the user started
        return unsupervised_end(run_dir)
    if last["event"] == "made" and owner is None and time.time() - last["time"] < STARTING_SECONDS:
        return "made", None, ""
    if last["event"] == "made" and owner is None:
        return "dead", None, f"it was made, and nothing has started it; start it with: regimen train resume={run_dir.path}"
    return "dead", None, f"its process is gone; go on with: regimen train resume={run_dir.path}"


def unsupervised_end(run_dir: RunDir) -> tuple[str, int | None, str]:
    """The state that the ranks' exit files show; as long as some are missing the others are still at work."""
    ranks = len(list(run_dir.layouts.glob("rank-*.json")))
    exits = read_exits(run_dir)
    if len(exits) < ranks and all(entry["code"] == DONE for entry in exits):
        return "running", None, f"{len(exits)} of {ranks} ranks have ended"
    outcome = outcome_of(run_dir, 0)
    return END_STATES.get(outcome.exit_code, "failed"), outcome.exit_code, outcome.message


def find_runs(output: Path | None) -> Iterator[RunDir]:
    """Every run folder under `output`, oldest first; None: under every place that this working folder has used."""
    folders = (folder for place in places(output) for depth in DEPTHS for folder in folders_below(place, depth))
    found = {folder.absolute(): folder for folder in folders if os.path.exists(folder / "run.yaml")}  # one place may lie in another
    for path in sorted(found.values(), key=made_at):
        yield RunDir(path)


def folders_below(place: Path, depth: int) -> Iterator[Path]:
    """The folders so many levels below. One that is removed meanwhile has none."""
    if depth == 0:
        yield place
        return
    try:
        inside = [Path(entry) for entry in os.scandir(place) if entry.is_dir()]
    except OSError:
        return
    for folder in inside:
        yield from folders_below(folder, depth - 1)


def made_at(folder: Path) -> int:
    """Nanoseconds since the epoch; 0 for a folder that has just been removed."""
    try:
        return folder.stat().st_ctime_ns
    except OSError:
        return 0


def last_run(output: Path | None) -> RunDir:
    """The run that was started last.

    Raises:
        ConfigError: where there is none.
    """
    runs = sorted(find_runs(output), key=lambda run: run.run_yaml.stat().st_mtime_ns)
    if not runs:
        raise ConfigError(
            f"There is no run under {in_words(places(output))}. Start one with `regimen train`, name a run folder, or say where the runs are with "
            "`--output FOLDER` (of train and plan: `output=FOLDER`)."
        )
    return runs[-1]


def named_run(name: str, output: Path | None) -> RunDir:
    """The run folder that `name` means: a path, `last`, or the name of a run where one run alone has it.

    Raises:
        ConfigError: where there is none, or several have the name.
    """
    if name == "last":
        return last_run(output)
    run_dir = RunDir(Path(name).expanduser().absolute())
    if not run_dir.run_yaml.is_file():
        of_that_name = [] if run_dir.path.exists() else [run for run in find_runs(output) if name in (run.path.parent.name, run.path.name)]
        if len(of_that_name) == 1:
            return RunDir(of_that_name[0].path.absolute())
        if len(of_that_name) > 1:
            raise ConfigError(
                f"{name} is the name of {len(of_that_name)} runs. Did you mean the newest, {of_that_name[-1].path}? "
                f"The others are {', '.join(str(run.path) for run in of_that_name[:-1])}."
            )
        meant = meant_run(name, output)
        listed = f"Did you mean {meant}?" if meant else f"`regimen status` lists the runs under {in_words(places(output))}."
        raise ConfigError(f"{name} is not a run folder, because it has no run.yaml. {listed}")
    return run_dir


def meant_run(name: str, output: Path | None) -> str:
    """The run that a folder is in, or the newest of those in it or of that name; empty where there is none."""
    given = Path(name).expanduser()
    around = next((folder for folder in given.parents if RunDir(folder).run_yaml.is_file()), None)
    if around is not None:
        inside = given.relative_to(around).parts
        return f"{around}@{inside[1]}" if inside[0] == RunDir(around).checkpoints.name and len(inside) > 1 else str(around)
    runs = [run.path for run in find_runs(output) if given.absolute() in run.path.absolute().parents or name in (run.path.parent.name, run.path.name)]
    return str(runs[-1]) if runs else "last" if name.lower() == "last" else ""


def as_dict(status: RunStatus) -> dict[str, Any]:
    return {
        "run_folder": str(status.run_dir.path.absolute()), "state": status.state, "step": status.step, "of": status.of, "loss": finite(status.loss),
        "eval_loss": finite(status.eval_loss), "measured": {name: finite(value) for name, value in status.measured.items()},
        "doing": status.doing, "updated": status.updated, "exit_code": status.exit_code, "message": status.message, "damaged": status.damaged,
        "job": status.job,
    }  # fmt: skip


def finite(value: float | None) -> float | None:
    """JSON cannot hold NaN and infinity; the message shows them."""
    return value if value is not None and math.isfinite(value) else None


def table(statuses: Sequence[RunStatus], width: int | None = None) -> list[str]:
    """One line for each run; where a line would be wider than the terminal, several short ones, so that nothing is cut."""
    lines = aligned([HEAD, *(row(status) for status in statuses)])
    if width is None or max(map(columns, lines)) <= width:
        return lines
    return [line for status in statuses for line in block(status, width)]


HEAD = ("run", "state", "step", "last step", "evaluation", "age", "")


def row(status: RunStatus) -> tuple[str, ...]:
    in_evaluation = {name: status.measured[f"eval_{name}"] for name in status.shown if f"eval_{name}" in status.measured}
    in_training = {name: status.measured[name] for name in status.shown if name in status.measured}
    last, evaluation = (BETWEEN.join(measures(values, status.shown)) for values in (in_training, in_evaluation))
    return (
        shortest(status.run_dir.path),
        status.state,
        steps(status),
        last,
        evaluation,
        age(time.time() - status.updated),
        first_line(remark(status)),
    )


def block(status: RunStatus, width: int) -> list[str]:
    """The same in several lines."""
    head = f"{shortest(status.run_dir.path)}  {status.state}  {steps(status)}  {age(time.time() - status.updated)} ago"
    texts = [BETWEEN.join(measures(status.measured, status.shown)), first_line(remark(status))]
    return [
        head,
        *(f"  {line}" for text in texts for line in in_columns(text, max(20, width - 2))),
    ]


def steps(status: RunStatus) -> str:
    return f"{status.step}/{status.of or '?'}"


def remark(status: RunStatus) -> str:
    texts = (status.damaged,) if status.state == "finished" else (status.doing, status.message, status.damaged)
    return "; ".join(text for text in texts if text)


def shortest(path: Path) -> str:
    """Below the working folder a path is shorter from there, and can be pasted all the same."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
