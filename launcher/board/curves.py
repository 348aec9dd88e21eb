"""The curves of a run from progress.jsonl: every value once, thinned out so that no peak is lost."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from operator import lt
from threading import Lock
from typing import Any

from conf.records import columns_of_steps
from conf.run_dir import RunDir
from launcher.board.axes import STEP, Clock
from launcher.board.series import Series
from launcher.launch.progress import Tail

KEPT_RUNS = 8  # whose curves stay in memory
NO_CURVE = ("step", "of", "time", "epoch", "eta_seconds", "resumed_from")
SMOOTHINGS = ("0.6", "0.9", "0.97")  # how much of the average up to a step the next one keeps
FIRST = ("loss", "reward", "reward_accuracy", "reward_margin", "kl", "lr", "grad_norm", "tokens_per_second")


class Curves:
    """Those of one run; reads what was added since the last look."""

    def __init__(self, run_dir: RunDir) -> None:
        self.tail = Tail(run_dir, from_start=True)
        self.series: defaultdict[str, Series] = defaultdict(Series)
        self.clock = Clock(self.series["tokens_per_second"])

    def read(self) -> None:
        for columns in columns_of_steps(self.tail.new_lines()):
            steps = columns["step"]
            rising = all(map(lt, steps, steps[1:]))
            self.clock.read(columns, rising)
            for name, values in columns.items():
                if name not in NO_CURVE:
                    self.series[name].extend(steps, values, rising)

    def charts(self, keep: float = 0.0, axis: str = STEP) -> list[dict[str, Any]]:
        """One for each measure: its values in training, smoothed with `keep`, and in evaluation where it has them. `axis`: what `x` is."""
        names = list(dict.fromkeys(name.removeprefix("eval_") for name, series in self.series.items() if series.steps or series.not_finite))
        ordered = sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
        over = None if axis == STEP else self.clock.over(axis)
        return [{"name": name, "training": self.drawn(name, keep, over), "evaluation": self.drawn(f"eval_{name}", 0.0, over)} for name in ordered]

    def drawn(self, name: str, keep: float, over: Callable[[int], float] | None) -> dict[str, Any]:
        line = self.series.get(name, Series()).thinned(keep)
        return line if over is None else {**line, "x": list(map(over, line["steps"]))}


def smoothing(asked: str) -> float:
    """One of SMOOTHINGS; 0 for anything else."""
    return float(asked) if asked in SMOOTHINGS else 0.0


class AllCurves:
    """The curves of the runs that were looked at last. What they hold can be read again at any time."""

    def __init__(self) -> None:
        self.kept: OrderedDict[RunDir, Curves] = OrderedDict()
        self.lock = Lock()  # for whoever reads them: pages ask at the same time

    def of(self, run_dir: RunDir) -> Curves:
        size = run_dir.progress.stat().st_size if run_dir.progress.is_file() and not run_dir.progress.is_symlink() else 0
        curves = self.kept.pop(run_dir, None)
        if curves is None or curves.tail.offset > size:  # it was written anew
            curves = Curves(run_dir)
        self.kept[run_dir] = curves
        while len(self.kept) > KEPT_RUNS:
            self.kept.popitem(last=False)
        if size:
            curves.read()
        return curves
