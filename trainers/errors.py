"""The error of data that a user must correct, and of a rank that follows another's; errors of a configuration key are plain ValueErrors."""

from conf.data_registry import DataError

__all__ = ["DataError", "RankZeroFailed", "Stopped", "UnsafeFile"]


class RankZeroFailed(RuntimeError):
    """Rank 0 has raised the cause; the others end with it."""


class UnsafeFile(ValueError):
    """A file would run code if it were loaded."""


class Stopped(BaseException):
    """The run was stopped before its first step, when there is nothing to save. No library may take it for an error of its own and go on."""

    def __init__(self, asked: bool) -> None:
        """`asked`: somebody wants the run to stop; otherwise only this rank was signalled, as an agent does when another rank has ended."""
        super().__init__("stopped before the first step")
        self.asked = asked
