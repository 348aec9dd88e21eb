"""What can go wrong, as one small tree; each class carries the exit code that the command line ends with.

conf/exit_codes.py says what each code means.

RegimenError
├── ConfigError
├── GateRefused
├── DataError
├── SubmissionError
├── RanksFailed
├── RunLocked
├── DiskError
├── SavedStartAgain
├── HangOrLostPeer
├── Unsafe
├── OutOfMemory
├── NotANumber
└── NoProgress
"""

from conf import exit_codes


class RegimenError(Exception):
    """A message for the user: what, which value, what to do instead. It is printed without a traceback."""

    exit_code = exit_codes.BUG


class ConfigError(RegimenError):
    exit_code = exit_codes.CONFIG


class GateRefused(RegimenError):
    exit_code = exit_codes.REFUSED


class DataError(RegimenError):
    exit_code = exit_codes.DATA


class SubmissionError(RegimenError):
    exit_code = exit_codes.SUBMISSION


class RanksFailed(RegimenError):
    exit_code = exit_codes.RANKS_FAILED


class RunLocked(RegimenError):
    exit_code = exit_codes.IN_USE


class DiskError(RegimenError):
    exit_code = exit_codes.DISK


class SavedStartAgain(RegimenError):
    exit_code = exit_codes.SAVED


class HangOrLostPeer(RegimenError):
    exit_code = exit_codes.LOST_PEER


class Unsafe(RegimenError):
    exit_code = exit_codes.UNSAFE


class OutOfMemory(RegimenError):
    exit_code = exit_codes.OUT_OF_MEMORY


class NotANumber(RegimenError):
    exit_code = exit_codes.NOT_A_NUMBER


class NoProgress(RegimenError):
    exit_code = exit_codes.NO_PROGRESS


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
