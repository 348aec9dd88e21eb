"""What each exit code of a launcher, a rank or a verb means: the only table of them."""

from dataclasses import dataclass
from typing import Literal, get_args

DONE = 0
BUG = 1
CONFIG = 2
REFUSED = 3
DATA = 4
SUBMISSION = 5
RANKS_FAILED = 6
IN_USE = 73
DISK = 74
SAVED = 75
LOST_PEER = 76
UNSAFE = 77
OUT_OF_MEMORY = 80
NOT_A_NUMBER = 81
NO_PROGRESS = 82
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# never: the same start would end the same way, or a person decided. after a warning: where Slurm stopped the run,
# before its time limit or by SIGTERM (preemption).
# within the budget: it may help, at most backend.max_restarts times without a new checkpoint. BUG is among them: what nobody has foreseen is often
# the machine's fault (a GPU or a network that fails ends in an exception of some library), and two starts cost less than a run that stands still.
Again = Literal["never", "after a warning", "within the budget"]
NEVER, AFTER_WARNING, WITHIN_BUDGET = get_args(Again)


@dataclass(frozen=True)
class ExitCode:
    code: int
    name: str  # as docs/guides/training.md lists it
    meaning: str
    again: Again  # whether the same run is started again by itself (launcher/launch/restart.py)


EXIT_CODES = (
    ExitCode(DONE, "done", "The run is finished, or the verb has done its work.", NEVER),
    ExitCode(BUG, "bug", "Something unexpected happened inside the program.", WITHIN_BUDGET),
    ExitCode(CONFIG, "configuration", "A key, a value or a pair of them cannot work, or does not match the run that is resumed.", NEVER),
    ExitCode(REFUSED, "refused by the gate", "The job does not fit the node.", NEVER),
    ExitCode(DATA, "data", "A data file or a record cannot be used.", NEVER),
    ExitCode(SUBMISSION, "submission", "Slurm did not accept the job, or Slurm or a machine of cluster=hosts cannot be reached.", NEVER),
    ExitCode(RANKS_FAILED, "ranks failed", "The processes failed and left no other cause.", WITHIN_BUDGET),
    ExitCode(IN_USE, "folder in use", "Another process works in the run folder.", NEVER),
    ExitCode(DISK, "disk", "The disk is full, or the place cannot be written.", NEVER),
    ExitCode(SAVED, "saved, start me again", "The run was stopped before its end and has saved a checkpoint.", AFTER_WARNING),
    ExitCode(LOST_PEER, "lost peer", "Another rank has ended or hangs.", WITHIN_BUDGET),
    ExitCode(UNSAFE, "refused for safety", "A value is a secret, or could be read as more than a value.", NEVER),
    ExitCode(OUT_OF_MEMORY, "out of memory", "The memory of a GPU or of the host is exhausted.", NEVER),
    ExitCode(NOT_A_NUMBER, "NaN", "The loss is NaN or infinite.", NEVER),
    ExitCode(NO_PROGRESS, "no progress", "The run was started again and again without a new checkpoint.", NEVER),
    ExitCode(INTERRUPTED, "interrupted", "The user pressed Ctrl-C.", NEVER),
)
