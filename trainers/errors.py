"""The error of data that a user must mend; errors of a configuration key are plain ValueErrors."""


class DataError(ValueError):
    """A message for the user: which file and record, which column, what was expected, what to do."""
