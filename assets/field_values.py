"""Payloads of declared formats as fields: the name of each with a number or a text, and the sender's time."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from assets.epochs import epoch_microseconds
from assets.json_payload import MAX_BYTES, as_number, parse_object, payload_text, shown
from assets.packed_payloads import unzipped
from assets.rejected import RejectedError

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NUMBER_FIELD = "value"
"""The field of a payload that is a number and nothing else."""


@dataclass(frozen=True)
class Format:
    """What the payloads of a topic are; see reference.topic_formats."""

    name: str
    time_field: str | None = None
    csv_columns: tuple[str, ...] = ()
    csv_delimiter: str = ","

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Format":
        """The format that a row of reference.topic_formats declares."""
        columns = json.loads(row["csv_columns"]) if row["csv_columns"] else ()
        return cls(row["format"], row["time_field"], tuple(columns), row["csv_delimiter"])


class Field(NamedTuple):
    """One field: ``observed_us`` is None where the sender tells no time; a boolean has both value and text."""

    name: str
    observed_us: int | None
    value: float | None
    text: str | None


def read_fields(payload: bytes, form: Format) -> list[Field]:
    """The fields of one payload, at least one.

    Raises:
        RejectedError: it is not what its format says.
    """
    if form.name == "number":
        found = [Field(NUMBER_FIELD, None, _number(payload_text(unzipped(payload, MAX_BYTES), "a number")), None)]
    elif form.name == "csv":
        found = list(_csv(payload_text(unzipped(payload, MAX_BYTES), "CSV lines"), form))
    else:
        found = list(_object(parse_object(payload), form))
    if not found:
        raise RejectedError("missing_field", "no field has a value; must be at least one")
    return found


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text.strip()):
        raise RejectedError("wrong_type", f"payload must be a number, got {shown(text)}")
    return as_number("payload", float(text))


def _time(field: str, value: Any) -> int:
    """Microseconds of a time since 1970 in any unit, or of an ISO 8601 text; one without an offset is UTC."""
    if not isinstance(value, str):
        return epoch_microseconds(field, value)
    if _NUMBER.fullmatch(value.strip()):
        return epoch_microseconds(field, value if value.strip().isdigit() else float(value))
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError as error:
        what = f"{field} must be a time since 1970 or ISO 8601 text, got {shown(value)}"
        raise RejectedError("wrong_type", what) from error
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return round(since.total_seconds() * 1_000_000)


def _object(document: dict[str, Any], form: Format) -> Iterator[Field]:
    fields = dict(_leaves("", document))
    observed = None
    if form.time_field is not None:
        observed = _time(form.time_field, fields.pop(form.time_field, None))
    for name, value in fields.items():
        if isinstance(value, bool):
            yield Field(name, observed, float(value), json.dumps(value))
        elif isinstance(value, str):
            yield Field(name, observed, None, value)
        else:
            yield Field(name, observed, as_number(name, value), None)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Fields of nested objects and lists as ``a.b`` and ``a.0``; null is nothing."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for part, inner in parts:
            yield from _leaves(f"{name}.{part}" if name else str(part), inner)
    elif value is not None:
        yield name, value


def _csv(text: str, form: Format) -> Iterator[Field]:
    try:
        lines = [line for line in csv.reader(io.StringIO(text), delimiter=form.csv_delimiter, strict=True) if line]
    except csv.Error as error:
        raise RejectedError("invalid_csv", f"payload is no CSV: {error}") from error
    columns = form.csv_columns or tuple(name.strip() for name in lines.pop(0))
    if form.time_field is None and len(lines) > 1:
        what = "name the column with the time in [[decode]], so that the lines can be told apart"
        raise RejectedError("missing_field", f"payload has {len(lines)} lines and no time: {what}")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(columns):
            what = f"line {number} has {len(line)} values, must be {len(columns)}: {', '.join(columns)}"
            raise RejectedError("invalid_csv", what)
        yield from _csv_line(dict(zip(columns, line, strict=True)), form)


def _csv_line(values: dict[str, str], form: Format) -> Iterator[Field]:
    observed = _time(form.time_field, values.pop(form.time_field, None)) if form.time_field is not None else None
    for name, text in values.items():
        if _NUMBER.fullmatch(text.strip()):
            yield Field(name, observed, as_number(name, float(text)), None)
        elif text.strip():
            yield Field(name, observed, None, text.strip())
