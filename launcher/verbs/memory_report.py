"""The verb `memory report`: how far predicted memory was from measured memory, over any set of runs."""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.run_dir import RunDir
from conf.words import aligned
from launcher.errors import ConfigError
from launcher.launch import status
from launcher.launch.places import in_words, places
from launcher.verbs.pictures import draw_errors, refuse_unwritable
from launcher.words import first_line

FOLDERS = ("run.yaml", "*/run.yaml", "*/*/run.yaml", "*/*/*/run.yaml")  # a run folder, or one that holds runs as output= does
WHOLE = {"allocated": "torch's peak on a GPU", "nvml": "nvidia-smi", "host": "host memory of a node"}


@dataclass(frozen=True)
class Comparison:
    """Of one run; an error is (predicted - measured) / measured."""

    run: str
    regime: str
    sharding: str
    predicted: int
    measured: int
    errors: dict[str, float]  # by quantity: those of WHOLE, then the phases

    @property
    def main(self) -> str:
        """The peak on a GPU; of a run on CPUs, host memory."""
        return "allocated" if "allocated" in self.errors else "host"


@dataclass(frozen=True)
class Missing:
    run: str
    why: str


@dataclass(frozen=True)
class Summary:
    name: str
    runs: int
    median: float  # with its sign: what is predicted too much (+) or too little (-) as a rule
    size: float  # the median of the errors' sizes
    worst: float
    worst_run: str


def report(names: Sequence[str], output: Path | None, picture: Path | None) -> int:
    """Print the table of the runs that `names` mean, and draw it where a picture is wanted."""
    if picture is not None:
        refuse_unwritable(picture)
    found = [read(run_dir) for run_dir in runs_of(names, output)]
    comparisons = [each for each in found if isinstance(each, Comparison)]
    print("\n".join(report_lines(comparisons, [each for each in found if isinstance(each, Missing)])))
    if picture is not None and comparisons:
        draw_errors(points_by_regime(comparisons), f"predicted against measured memory, {len(comparisons)} runs", picture)
        print(f"\npicture: {picture}")
    return 0


def runs_of(names: Iterable[str], output: Path | None) -> list[RunDir]:
    """Run folders as named, `last`, or all under a folder.

    Raises:
        ConfigError: for a name under which there is no run.
    """
    found: dict[Path, RunDir] = {}
    for name in names:
        folders = (
            [status.last_run(output).path] if name == "last" else [file.parent for pattern in FOLDERS for file in sorted(Path(name).glob(pattern))]
        )
        if not folders:
            raise ConfigError(
                f"{name} holds no run. No run.yaml is in it or up to three folders below. "
                f"`regimen status` lists the runs under {in_words(places(output))}."
            )
        found |= {folder.absolute(): RunDir(folder) for folder in folders}
    return list(found.values())


def read(run_dir: RunDir) -> Comparison | Missing:
    """What memory.json and run.yaml show about a run, or why they show nothing."""
    name = str(run_dir.path)
    if not run_dir.memory.exists():
        return Missing(name, unmeasured(status.status_of(run_dir)))
    try:
        memory = json.loads(run_dir.memory.read_text(encoding="utf-8"))
        run = yaml.safe_load(run_dir.run_yaml.read_text(encoding="utf-8"))
        return compared_run(name, run, memory)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        return Missing(name, f"its files cannot be read: {first_line(str(error))}")


def compared_run(name: str, run: dict[str, Any], memory: dict[str, Any]) -> Comparison | Missing:
    if not memory.get("predicted"):
        return Missing(name, "nothing was predicted: it was started without a plan")
    if "compared" not in memory:
        return Missing(name, "memory.json is of an earlier version, which did not compare")
    return comparison(name, run, memory["compared"], len(memory["measured"]))


def unmeasured(now: status.RunStatus) -> str:
    why = {
        "made": "it was never started",
        "finished": "an earlier version wrote no memory.json",
        "stopped": f"stopped at step {now.step}: memory is compared when a run finishes",
    }
    return why.get(now.state, f"{now.state} at step {now.step}" + (f": {first_line(now.message)}" if now.message else ""))


def comparison(name: str, run: dict[str, Any], compared: dict[str, Any], ranks: int) -> Comparison:
    whole = {key: pair for key, pair in compared.items() if key in WHOLE}
    errors = {key: pair["error"] for key, pair in {**whole, **compared["phases"]}.items()}
    peak = whole.get("allocated", whole["host"])
    return Comparison(name, regime_label(run), f"{run['sharding']['name']} x{ranks}", peak["predicted"], peak["measured"], errors)


def regime_label(run: dict[str, Any]) -> str:
    regime, precision = run["regime"], run["training"]["precision"]
    return f"{regime['name']}{regime['bits']}" if "bits" in regime else f"{regime['name']} {precision}"


def summarise(name: str, errors: Sequence[tuple[float, str]]) -> Summary:
    """`errors`: each with its run."""
    values = [error for error, _ in errors]
    worst, run = max(errors, key=lambda pair: abs(pair[0]))
    return Summary(name, len(values), statistics.median(values), statistics.median(map(abs, values)), worst, run)


def by_quantity(comparisons: Sequence[Comparison]) -> list[Summary]:
    """Whole figures first, then the phases."""
    names = dict.fromkeys([*WHOLE, *(name for each in comparisons for name in each.errors)])
    found = {name: [(each.errors[name], each.run) for each in comparisons if name in each.errors] for name in names}
    return [summarise(WHOLE.get(name, name), errors) for name, errors in found.items() if errors]


def by_label(comparisons: Sequence[Comparison], label: Callable[[Comparison], str]) -> list[Summary]:
    """Errors of the peak, one row a label; GPUs and CPUs are different quantities and stay apart."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for each in comparisons:
        groups.setdefault(label(each) + ("" if each.main == "allocated" else ", host"), []).append((each.errors[each.main], each.run))
    return [summarise(name, errors) for name, errors in sorted(groups.items())]


def report_lines(comparisons: Sequence[Comparison], missing: Sequence[Missing]) -> list[str]:
    lines: list[str] = []
    if comparisons:
        lines += [*table(run_rows(comparisons)), "", "error by quantity and phase:", *table(summary_rows(by_quantity(comparisons)))]
        lines += ["", "error of the peak by regime:", *table(summary_rows(by_label(comparisons, lambda each: each.regime)))]
        lines += ["", "error of the peak by sharding:", *table(summary_rows(by_label(comparisons, lambda each: each.sharding)))]
        phaseless = [each.run for each in comparisons if not set(each.errors) - set(WHOLE)]
        lines += [f"no phases: {run} (a run on CPUs, or shorter than two steps)" for run in phaseless]
    lines += [f"no measurement: {each.run}: {each.why}" for each in missing]
    return [*lines, f"{len(comparisons)} of {len(comparisons) + len(missing)} runs compared; + means predicted too much, - too little."]


def run_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    head = ("run", "regime", "sharding", "peak", "predicted", "measured", "error")
    return [
        head,
        *(
            (each.run, each.regime, each.sharding, each.main, gib(each.predicted), gib(each.measured), percent(each.errors[each.main]))
            for each in comparisons
        ),
    ]


def summary_rows(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    head = ("", "runs", "median", "median size", "worst", "worst run")
    return [head, *((s.name, str(s.runs), percent(s.median), f"{s.size:.2%}", percent(s.worst), s.worst_run) for s in summaries)]


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"  {line}" for line in aligned(rows)]


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def percent(share: float) -> str:
    return f"{share:+.2%}"


def points_by_regime(comparisons: Sequence[Comparison]) -> dict[str, list[tuple[str, float]]]:
    """For the picture, in the order of the table."""
    ordered = [*WHOLE, *(name for each in comparisons for name in each.errors)]
    points: dict[str, list[tuple[str, float]]] = {}
    for each in sorted(comparisons, key=lambda each: each.regime):
        points.setdefault(each.regime, []).extend(sorted(each.errors.items(), key=lambda item: ordered.index(item[0])))
    return points
