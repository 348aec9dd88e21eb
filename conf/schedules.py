"""The learning rate of each step, as transformers computes it (optimization.py 5.23): what a run says of its schedule before it starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, cos, pi, sqrt

from conf.rows import row_of
from conf.schema import Optim

POLYNOMIAL_END = 1e-7  # lr_end of get_polynomial_decay_schedule_with_warmup
SCALE_WITHOUT_WARMUP = 10_000  # timescale of get_inverse_sqrt_schedule
MIN_SHARE = 0.1  # of the peak, where cosine_with_min_lr ends; transformers has no value of its own and would end with an error


@dataclass(frozen=True)
class ScheduleRow:
    # (share of the steps after the warmup that is over, peak of the learning rate) to the factor on that peak; None: see factor().
    after_warmup: Callable[[float, float], float] | None
    knows_total: bool = True  # the rate after the warmup depends on the number of steps of the run
    warms_up: bool = True


def polynomial(progress: float, peak: float) -> float:
    return ((peak - POLYNOMIAL_END) * (1 - progress) + POLYNOMIAL_END) / peak if progress <= 1 else POLYNOMIAL_END / peak


SCHEDULES: Mapping[str, ScheduleRow] = {
    "linear": ScheduleRow(lambda progress, peak: max(0.0, 1 - progress)),
    "cosine": ScheduleRow(lambda progress, peak: max(0.0, 0.5 * (1 + cos(pi * progress)))),
    "cosine_with_restarts": ScheduleRow(lambda progress, peak: 0.0 if progress >= 1 else max(0.0, 0.5 * (1 + cos(pi * progress)))),
    "cosine_with_min_lr": ScheduleRow(lambda progress, peak: max(0.0, 0.5 * (1 + cos(pi * progress)) * (1 - MIN_SHARE) + MIN_SHARE)),
    "polynomial": ScheduleRow(polynomial),
    "constant": ScheduleRow(lambda progress, peak: 1.0, knows_total=False, warms_up=False),
    "constant_with_warmup": ScheduleRow(lambda progress, peak: 1.0, knows_total=False),
    "inverse_sqrt": ScheduleRow(None, knows_total=False),
}


def schedule_row(name: str) -> ScheduleRow:
    """Raises MissingRow where the table has none."""
    return row_of(SCHEDULES, "optim.scheduler", name, "SCHEDULES in conf/schedules.py")


def warmup_steps(optim: Optim, total: int) -> int:
    """optim.warmup is a share of all steps below 1, and a number of steps from there on."""
    return int(optim.warmup) if optim.warmup >= 1 else ceil(total * optim.warmup)


def depends_on_total(optim: Optim) -> bool:
    """Whether another number of steps changes the rate of a step."""
    row = schedule_row(optim.scheduler)
    return row.knows_total or (row.warms_up and 0 < optim.warmup < 1)


def rate(optim: Optim, step: int, total: int) -> float:
    """The learning rate with which step `step` (from 1) of `total` is made."""
    return optim.lr * factor(optim, step - 1, total)


def factor(optim: Optim, done: int, total: int) -> float:
    """On the peak, after `done` steps."""
    row, warmup = schedule_row(optim.scheduler), warmup_steps(optim, total)
    if row.warms_up and done < warmup:
        return done / max(1, warmup)
    if row.after_warmup is None:
        scale = warmup or SCALE_WITHOUT_WARMUP
        return 1 / sqrt((done - warmup + scale) / scale)
    return row.after_warmup((done - warmup) / max(1, total - warmup), optim.lr)
