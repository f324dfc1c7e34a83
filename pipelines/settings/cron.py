"""Times of schedules: five fields of cron, checked without importing Dagster."""

import re
from typing import Annotated

from pydantic import AfterValidator

from resources.strict_model import shown

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?")
_EXAMPLE = "a cron expression like '*/30 * * * *' (minute, hour, day of the month, month, day of the week)"


def _cron(value: str) -> str:
    fields = value.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"must be {_EXAMPLE}, got {shown(value)}")
    for text, field in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            if problem := _problem(part, *field):
                raise ValueError(f"must be {_EXAMPLE}: {problem}, got {shown(value)}")
    longest = max(_LONGEST[month - 1] for month in _numbers(fields[3], *_FIELDS[3][1:]))
    if min(_numbers(fields[2], *_FIELDS[2][1:])) > longest:
        raise ValueError(f"must be {_EXAMPLE}: no such month has a day {fields[2]}, got {shown(value)}")
    return value


def _numbers(text: str, least: int, most: int, names: tuple[str, ...]) -> set[int]:
    """The numbers that a checked field names; steps are left out, as each begins with the first number."""
    found = set[int]()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        numbers = [_number(t, least, names) for t in match.group(1, 2) if t] if match else []
        ends = numbers if match and match[3] is None else []  # 5/15 goes on to the end
        first, last = (*numbers, *ends, most)[:2] if numbers else (least, most)
        assert first is not None and last is not None
        found |= {*range(first, last + 1)} or {*range(first, most + 1), *range(least, last + 1)}
    return found


def _problem(part: str, name: str, least: int, most: int, names: tuple[str, ...]) -> str | None:
    """What is wrong with one part of a field's list; None if nothing is."""
    match = _PART.fullmatch(part)
    if match is None or any(text and _number(text, least, names) is None for text in match.group(1, 2)):
        return f"{shown(part)} is no {name}"
    numbers = [_number(text, least, names) for text in match.group(1, 2) if text]
    if any(number is not None and not least <= number <= most for number in numbers):
        return f"{name} must be from {least} to {most}"
    if match[3] is not None and not 1 <= int(match[3]) <= most:
        return f"the step of {name} must be from 1 to {most}"
    return None


def _number(text: str, least: int, names: tuple[str, ...]) -> int | None:
    """The number that a text means; None where it is neither a number nor a name of the field."""
    if text in names:
        return names.index(text) + least
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


Cron = Annotated[str, AfterValidator(_cron)]
