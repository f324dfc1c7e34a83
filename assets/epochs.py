"""Times since 1970 whose unit the sender does not tell: seconds, milliseconds, microseconds or nanoseconds.

The size tells them apart: seconds stay below 1e11 until the year 5138, and each smaller unit is a thousand times that.
"""

import re
from typing import Any

import polars as pl

from assets.json_payload import as_integer, as_number, shown
from assets.rejected import RejectedError

_BELOW_SECONDS, _BELOW_MILLISECONDS, _BELOW_MICROSECONDS = 10**11, 10**14, 10**17
_ACCEPTED = "a time since 1970 in s, ms, us or ns"


def epoch_expression(time: pl.Expr) -> pl.Expr:
    """Microseconds since 1970 of integers of any of the units; nanoseconds are cut."""
    size = time.abs()
    return (
        pl.when(size < _BELOW_SECONDS)
        .then(time * 1_000_000)
        .when(size < _BELOW_MILLISECONDS)
        .then(time * 1000)
        .when(size < _BELOW_MICROSECONDS)
        .then(time)
        .otherwise(time // 1000)
    )


def _scaled(time: float) -> int:
    size = abs(time)
    if size < _BELOW_SECONDS:
        return round(time * 1_000_000)
    if size < _BELOW_MILLISECONDS:
        return round(time * 1000)
    return round(time) if size < _BELOW_MICROSECONDS else int(time // 1000)


def epoch_microseconds(field: str, value: Any) -> int:
    """Microseconds since 1970 of a number of any of the units, or of its digits as text.

    Raises:
        RejectedError: missing_field, wrong_type, not_finite or integer_out_of_range.
    """
    if value is None:
        raise RejectedError("missing_field", f"{field} is missing; must be {_ACCEPTED}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RejectedError("wrong_type", f"{field} must be {_ACCEPTED}, got {shown(value)}")
    if isinstance(value, str):
        if not re.fullmatch(r"\s*-?[0-9]{1,4000}\s*", value):
            raise RejectedError("wrong_type", f"{field} must be {_ACCEPTED}, got {shown(value)}")
        value = int(value)
    if isinstance(value, float):
        value = as_number(field, value)
        if abs(value) >= 2**63:
            raise RejectedError("integer_out_of_range", f"{field} must be {_ACCEPTED}, got {shown(value)}")
        return _scaled(value)
    return _scaled(as_integer(field, value))
