"""The error of data that a user must correct, and of a rank that follows another's; errors of a configuration key are plain ValueErrors."""

from conf.data_registry import DataError

__all__ = ["NOTHING_TO_SAVE", "DataError", "Kept", "Left", "RankZeroFailed", "Stopped", "UnsafeFile"]

NOTHING_TO_SAVE = "stopped before the first step, so there was nothing to save"


class RankZeroFailed(RuntimeError):
    """Rank 0 has raised the cause; the others end with it."""


class Kept(Exception):
    """A verb was asked to stop. The message says where what it has done so far is, and how to go on."""


class UnsafeFile(ValueError):
    """A file would run code if it were loaded."""


class Left(BaseException):
    """All ranks left together what they did between two steps, because the run is asked to stop. No library may take it for an error of its own."""


class Stopped(BaseException):
    """The run was stopped before its first step, when there is nothing to save. No library may take it for an error of its own and go on."""

    def __init__(self, asked: bool) -> None:
        """`asked`: somebody wants the run to stop; otherwise only this rank was signalled, as an agent does when another rank has ended."""
        super().__init__("stopped before the first step")
        self.asked = asked
