"""The one exception tree.

    SecchiError
    ├── ConfigurationError      a mistake in secchi.toml or in a declaration; the user's to mend, exit code 2
    ├── SourceUnavailableError  a broker, device, disk or catalog that does not answer; retried with back-off
    │   └── LandingFullError    landing reached its size cap or the disk is full; the collector stops acknowledging
    ├── SchemaMismatchError     a stored table differs from its declaration in a way that needs a decision
    ├── CommitConflictError     another committer moved the table; the plan is made again
    └── TableFunctionError      a user's own function or expression fails; its table backs off

A record that cannot be used is no exception: it is a row of ``quarantine.records`` with a reason.
"""

import re

_NOISE = re.compile(
    r"\[errno \d+\] ?| \(os error \d+\)| \(set POLARS_VERBOSE=1[^)]*\)|^\(sqlite3\.\w+\) | ?Detail: ", re.IGNORECASE
)


def reason_of(error: BaseException) -> str:
    """What an error of the system or of a library says, in one line and without its numbers and places of code."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    lines = str(error).splitlines() or [type(error).__name__]
    return _NOISE.sub("", lines[0])


class SecchiError(Exception):
    """Base of every error that Secchi raises on purpose; its message is one line for an operator."""


class ConfigurationError(SecchiError):
    """A mistake in the configuration or a declaration, with file, key, value and the way out."""


class SourceUnavailableError(SecchiError):
    """Something outside the process does not answer; the caller retries with back-off."""


class LandingFullError(SourceUnavailableError):
    """Landing is at its size cap or its disk is full; nothing is acknowledged until there is room."""


class SchemaMismatchError(SecchiError):
    """The stored schema differs from the declared one by more than new nullable columns."""


class CommitConflictError(SecchiError):
    """The table's marker is not where the plan found it; plan again."""


class TableFunctionError(SecchiError):
    """A function or an expression that a user wrote for a table fails; the table backs off, others go on."""
