"""What can go wrong, as one small tree; each class carries the exit code that the command line ends with.

RegimenError (1)
├── ConfigError (2)       a key, a value or a pair of them; a resume that does not match
├── GateRefused (3)       the job does not fit the node
├── DataError (4)         data files and records
├── SubmissionError (5)   sbatch or a Slurm answer
├── RanksFailed (6)       the processes ended badly and left no better cause
├── RunLocked (73)        another process works in the run folder
├── DiskError (74)        disk full or not writable
├── SavedStartAgain (75)  stopped with a checkpoint
├── HangOrLostPeer (76)
├── Unsafe (77)           refused for safety
├── OutOfMemory (80)
├── NotANumber (81)
└── NoProgress (82)
"""


class RegimenError(Exception):
    """A message for the user: what, which value, what to do instead. It is printed without a traceback."""

    exit_code = 1


class ConfigError(RegimenError):
    exit_code = 2


class GateRefused(RegimenError):
    exit_code = 3


class DataError(RegimenError):
    exit_code = 4


class SubmissionError(RegimenError):
    exit_code = 5


class RanksFailed(RegimenError):
    exit_code = 6


class RunLocked(RegimenError):
    exit_code = 73


class DiskError(RegimenError):
    exit_code = 74


class SavedStartAgain(RegimenError):
    exit_code = 75


class HangOrLostPeer(RegimenError):
    exit_code = 76


class Unsafe(RegimenError):
    exit_code = 77


class OutOfMemory(RegimenError):
    exit_code = 80


class NotANumber(RegimenError):
    exit_code = 81


class NoProgress(RegimenError):
    exit_code = 82


BY_EXIT_CODE: dict[int, type[RegimenError]] = {
    error.exit_code: error
    for error in (
        ConfigError,
        GateRefused,
        DataError,
        SubmissionError,
        RanksFailed,
        RunLocked,
        DiskError,
        SavedStartAgain,
        HangOrLostPeer,
        Unsafe,
        OutOfMemory,
        NotANumber,
        NoProgress,
    )
}
