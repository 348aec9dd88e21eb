"""The error of data that a user must mend, and of a rank that follows another's; errors of a configuration key are plain ValueErrors."""


class DataError(ValueError):
    """A message for the user: which file and record, which column, what was expected, what to do."""


class RankZeroFailed(RuntimeError):
    """Rank 0 has raised the cause; the others end with it."""
