"""Durations as users write them."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)")
_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 36_525 * 86_400.0


def parse_duration(value: Any) -> Any:
    """Turns ``"1m30s"``, ``"5m"`` or a number of seconds into a timedelta; leaves anything else to the model.

    Raises:
        ValueError: a text that is no duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(float(value))
    if isinstance(value, str):
        if not re.fullmatch(rf"({_DURATION.pattern}\s*)+", value):
            raise ValueError(f"must be a duration like '30s', '5m', '1h30m' or a number of seconds, got {value!r}")
        return _bounded(sum(float(n) * _DURATION_UNITS[u] for n, u in _DURATION.findall(value)))
    return value


def spelled(duration: timedelta) -> str:
    """A duration as the configuration spells it: 7d, 1h30m, 250ms."""
    left, parts = duration // timedelta(microseconds=1), []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, left = divmod(left, round(_DURATION_UNITS[unit] * 1e6))
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def _bounded(seconds: float) -> timedelta:
    if not 0 <= seconds <= _LONGEST:
        raise ValueError("must be from 0 s to 100 years")
    return timedelta(seconds=seconds)


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than 0 s")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
