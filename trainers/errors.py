"""The error of data that a user must correct, and of a rank that follows another's; errors of a configuration key are plain ValueErrors."""

from conf.data_registry import DataError

__all__ = ["DataError", "RankZeroFailed", "UnsafeFile"]


class RankZeroFailed(RuntimeError):
    """Rank 0 has raised the cause; the others end with it."""


class UnsafeFile(ValueError):
    """A file would run code if it were loaded."""
