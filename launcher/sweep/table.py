"""The results of a sweep as text, and as an exit code."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from conf.exit_codes import INTERRUPTED, RANKS_FAILED, SAVED
from conf.words import aligned
from launcher.sweep.points import Point, Result
from launcher.sweep.processes import Running
from launcher.words import duration, plural

STATES = ("finished", "refused", "failed", "stopped", "running", "not started")
HEAD = ("point", "overrides", "state", "loss", "run folder", "cause")


def table_lines(results: Sequence[Result]) -> list[str]:
    """A row for each point, the count of each state, and the best point where there is a choice."""
    rows = [HEAD, *(row(result) for result in sorted(results, key=lambda result: result.point.number))]
    return [*aligned(rows), "", *summary_lines(results)]


def row(result: Result) -> tuple[str, ...]:
    point = result.point
    return (str(point.number), label(point), result.state, loss(result), str(result.run_dir.path) if result.run_dir else "", why(result))


def why(result: Result) -> str:
    """The cause of an end or of a refusal, and of what does not fit the cheapest change with which it would."""
    return result.cause + (f" Would fit: {' '.join(result.fits)}" if result.fits else "")


def label(point: Point) -> str:
    return " ".join(point.varied or point.overrides)


def loss(result: Result) -> str:
    if result.objective is None:
        return ""
    return f"{result.objective:.4f}" + ("" if result.measure == "evaluation loss" else " (training)")


def summary_lines(results: Sequence[Result]) -> list[str]:
    winner = best(results)
    if winner is None:
        return [counts(results)]
    return [counts(results), f"best: point {winner.point.number}, {winner.measure} {winner.objective:.4f}: {label(winner.point)}"]


def best(results: Sequence[Result]) -> Result | None:
    """The point of the least objective; None where there is no choice, or not all were measured in the same way."""
    measured = [result for result in results if result.objective is not None]
    if len(measured) < 2 or len({result.measure for result in measured}) > 1:
        return None
    return min(measured, key=lambda result: result.objective or 0.0)


def counts(results: Sequence[Result]) -> str:
    """How many points are in each state, the usual states first."""
    states = Counter(result.state for result in results)
    order = [*STATES, *(state for state in states if state not in STATES)]
    return f"{plural(len(results), 'point')}: " + ", ".join(f"{states[state]} {state}" for state in order if states[state])


def started_line(running: Running, gpus: tuple[str, ...]) -> str:
    """`gpus`: all of the sweep; a point shows their numbers, since a UUID is hard to read."""
    place = on_gpus(tuple(str(gpus.index(gpu)) for gpu in running.gpus))
    return f"point {running.point.number} {'goes on' if running.again else 'starts'}{place}: {label(running.point)}  ({running.run_dir.path})"


def twin_line(point: Point, twin: Point) -> str:
    """Of a point that has the configuration of another one of its batch."""
    return f"{label(point)} describes the same run as point {twin.number} ({label(twin)}), so it is trained once, and both have its result."


def begun_line(result: Result, gpus: tuple[str, ...]) -> str:
    """As the ledger has it."""
    folder = f"  ({result.run_dir.path})" if result.run_dir else ""
    return f"point {result.point.number} starts{on_gpus(gpus)}: {label(result.point)}{folder}"


def on_gpus(gpus: tuple[str, ...]) -> str:
    return f" on GPU {', '.join(gpus)}" if gpus else ""


def known_line(result: Result) -> str:
    """Of a point that an earlier start brought to its end."""
    if result.state == "finished":
        measured = f": {result.measure} {result.objective:.4f}" if result.objective is not None else ""
        return f"point {result.point.number} is finished already{measured}"
    if result.state == "running":
        return f"point {result.point.number} waits or runs already: {result.cause}"
    return f"point {result.point.number} would fail again and is not started: {result.cause}"


def ended_line(result: Result) -> str:
    took = f" in {duration(result.seconds)}" if result.seconds else ""
    measured = f", {result.measure} {result.objective:.4f}" if result.objective is not None else ""
    cause = f": {why(result)}" if result.cause else ""
    return f"point {result.point.number} {result.state}{took}{measured}{cause}"


def result_as_dict(result: Result) -> dict[str, Any]:
    """A point for programs; seconds, and a loss as it was measured."""
    return {
        "point": result.point.number,
        "overrides": list(result.point.overrides),
        "varied": list(result.point.varied),
        "fingerprint": result.point.fingerprint,
        "state": result.state,
        "objective": result.objective,
        "measure": result.measure,
        "run_folder": str(result.run_dir.path) if result.run_dir else None,
        "cause": result.cause,
        "fits": list(result.fits),
        "seconds": result.seconds,
    }


def exit_code(results: Sequence[Result]) -> int:
    """0 only where every point finished; where only a stop kept it from that, the code of a stop; where all were refused for one reason, its code."""
    states = {result.state for result in results}
    if states <= {"finished", "running"}:  # what still runs was submitted to Slurm, and ends by itself
        return 0 if states else RANKS_FAILED
    if results and states <= {"finished", "stopped", "not started"}:
        return SAVED if "stopped" in states else INTERRUPTED  # nothing was saved where no point had begun
    refusals = {result.refusal for result in results}
    return refusals.pop() if states == {"refused"} and len(refusals) == 1 else RANKS_FAILED
