"""What the commands print: tables for people, CSV and JSON for programs."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resources.terminal import printable

Format = Literal["table", "csv", "json"]
FORMATS = ("table", "csv", "json")
_PIPE_WIDTH = 200


def console(*, to_stderr: bool = False) -> Console:
    """A console that is as wide as the terminal, or wide enough for a pipe."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], form: Format) -> None:
    """Prints rows in the order given; as a table, one below the other where not even the names stand side by side."""
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        shown = printable if sys.stdout.isatty() else str  # a file gets the text as it is
        writer.writerow([shown(name) for name in columns])
        writer.writerows([_csv(value, shown) for value in row] for row in rows)
    elif form == "json":
        _print_json(columns, rows)
    else:
        out = console()
        for table in _tables(columns, [list(row) for row in rows], out.width):
            out.print(table)


def _tables(columns: Sequence[str], cells: list[list[Any]], width: int) -> Iterator[Table]:
    """One table of the rows, or one of each row."""
    if not cells or sum(len(name) + 3 for name in columns) < width:
        yield _rich_table(columns, cells)
    else:
        for number, row in enumerate(cells, start=1):
            yield _rich_table(("column", f"row {number}"), [list(pair) for pair in zip(columns, row, strict=True)])


def _rich_table(columns: Sequence[str], cells: list[list[Any]]) -> Table:
    """A table of the rows; columns of numbers stand at the right."""
    table = Table()
    for i, name in enumerate(columns):
        values = [row[i] for row in cells if row[i] is not None]
        is_number = all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in values)
        justify: Literal["left", "right"] = "right" if values and is_number else "left"
        table.add_column(Text(printable(name)), justify=justify, overflow="fold")
    for row in cells:
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def text_or_hex(raw: bytes) -> str:
    """Text where it is text, else hex."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.hex()


def age(seconds: float | None) -> str:
    """A length of time as people say it: 4.2 s, 12 min, 3.5 h, 8.1 d."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def counted(count: int, one: str) -> str:
    """A number with its noun: 1 record, 2 records, 2 batches."""
    return f"{count} {one}{'' if count == 1 else 'es' if one.endswith('ch') else 's'}"


def size(count: int) -> str:
    """A number of bytes as people say it."""
    number, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        shown = value.isoformat(sep=" ", timespec="auto")
        return shown.removesuffix("+00:00") + "Z" if shown.endswith("+00:00") else shown
    if isinstance(value, float):
        return f"{value:.10g}"
    plain = to_json(value)
    return printable(plain if isinstance(plain, str) else _dumps(plain))


def _csv(value: Any, shown: Callable[[str], str]) -> Any:
    if isinstance(value, float):
        return value
    plain = to_json(value)
    return _dumps(plain) if isinstance(plain, dict | list | bool) else shown(plain) if isinstance(plain, str) else plain


def to_json(value: Any) -> Any:
    """A value as JSON holds it: times in ISO 8601, binary in hex, a decimal that a float would round as a string."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(to_json(k)): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return str(value)


def _print_json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """One array, one object a line: readable by line and as a whole."""
    names = list(_distinct(columns))
    before = "["
    for row in rows:
        print(before, _dumps(dict(zip(names, map(to_json, row), strict=True))), sep="\n", end="")  # noqa: T201
        before = ","
    print("[]" if before == "[" else "\n]")  # noqa: T201


def _distinct(columns: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in columns:
        number, free = 1, name
        while free in seen:
            free, number = f"{name}_{number}", number + 1
        seen.add(free)
        yield free


def _dumps(value: Any) -> str:
    """JSON in which control characters, of any kind, are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
