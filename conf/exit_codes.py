"""What each exit code of a launcher, a rank or a verb means: the only table of them."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class ExitCode:
    code: int
    name: str  # as README.md lists it
    meaning: str


EXIT_CODES = (
    ExitCode(DONE, "done", "The run is finished, or the verb has done its work."),
    ExitCode(BUG, "bug", "Something unexpected happened inside the program."),
    ExitCode(CONFIG, "configuration", "A key, a value or a pair of them cannot work, or does not match the run that is resumed."),
    ExitCode(REFUSED, "refused by the gate", "The job does not fit the node."),
    ExitCode(DATA, "data", "A data file or a record cannot be used."),
    ExitCode(SUBMISSION, "submission", "Slurm did not accept the job, or cannot be reached."),
    ExitCode(RANKS_FAILED, "ranks failed", "The processes failed and left no other cause."),
    ExitCode(IN_USE, "folder in use", "Another process works in the run folder."),
    ExitCode(DISK, "disk", "The disk is full, or the place cannot be written."),
    ExitCode(SAVED, "saved, start me again", "The run was stopped before its end and has saved a checkpoint."),
    ExitCode(LOST_PEER, "lost peer", "Another rank has ended or hangs."),
    ExitCode(UNSAFE, "refused for safety", "A value is a secret, or could be read as more than a value."),
    ExitCode(OUT_OF_MEMORY, "out of memory", "The memory of a GPU or of the host is exhausted."),
    ExitCode(NOT_A_NUMBER, "NaN", "The loss is NaN or infinite."),
    ExitCode(NO_PROGRESS, "no progress", "The run was started again and again without a new checkpoint."),
    ExitCode(INTERRUPTED, "interrupted", "The user pressed Ctrl-C."),
)
