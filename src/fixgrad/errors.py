"""Errors that a user can act on.

Each message is one line that names the thing, the number, the limit and what to do. The command line prints the message
alone and exits with `exit_code`.
"""


class FixgradError(ValueError):
    """Base of every error that fixgrad raises on purpose. Exit code 1: the work failed."""

    exit_code = 1


class UsageError(FixgradError):
    """The request itself is wrong (an unknown model, an impossible density). Exit code 2."""

    exit_code = 2


class DataError(FixgradError):
    """A file or a tensor is missing, damaged or not what was expected."""
