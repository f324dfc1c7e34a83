"""From a row back to the bytes it came from: the rows of its inputs, their places in landing, commits and runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from assets.aggregation import chosen
from assets.episodes import CLEARED, RAISED
from assets.lookups import Enriched, is_row_by_row
from assets.ops.batches import batches
from assets.pairing import Pairing, Side
from assets.table import Table
from assets.windowing import END
from pipelines.context import Context
from pipelines.micro_batch import commits_of
from resources.errors import SecchiError
from resources.selection import BATCH_ID, Among, Ranges, Where

_POSITION = ["stream", "sequence", "row"]
_RETRACTED = "is_retracted"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Traced:
    """Rows of one table, the commits that wrote them (rows of ops.batches), and where they come from.

    ``expected`` counts the rows that there were; fewer are there where retention has passed.
    """

    table: Table
    rows: pl.DataFrame
    commits: pl.DataFrame
    origins: list["Traced"] = field(default_factory=list)
    expected: int | None = None


def trace(context: Context, identifier: str, wanted: Mapping[str, str]) -> Traced:
    """Finds the one row whose columns have the given values (as text), and follows it to bronze.

    Raises:
        SecchiError: there is no such table or column, a value cannot be read, or not exactly one row is meant.
    """
    table = context.tables.get(identifier)
    if table is None:
        raise SecchiError(f"{identifier}: is no table; tables are {', '.join(sorted(context.tables))}")
    conditions = [_condition(table, name, text) for name, text in wanted.items()]
    found = context.lakehouse.read(table.stored, *conditions)
    if found.height != 1:
        raise SecchiError(_not_one(table, wanted, found))
    return _traced(context, table, found)


def _condition(table: Table, name: str, text: str) -> Where:
    if name not in table.schema:
        raise SecchiError(f"{table.identifier}: {name!r} is no column; the key is {', '.join(table.key)}")
    dtype = table.schema[name]
    try:
        if dtype.is_temporal():
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return Ranges(name, [(at, at + _MICROSECOND)])
        return Among(name, [pl.Series([text]).cast(dtype).item()])
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise SecchiError(f"{table.identifier}: {name} must be {dtype}, got {text!r}") from error


def _not_one(table: Table, wanted: Mapping[str, str], found: pl.DataFrame) -> str:
    asked = " ".join(f"{name}={text}" for name, text in wanted.items()) or "no condition"
    if found.is_empty():
        return f"{table.identifier}: no row has {asked}; its key is {', '.join(table.key)}"
    example = _key_of(found.select(table.key).row(0, named=True))
    return f"{table.identifier}: {found.height} rows have {asked}; name one by its key, as in {example}"


def _key_of(row: Mapping[str, Any]) -> str:
    return " ".join(f"{n}={v.isoformat() if isinstance(v, datetime) else v}" for n, v in row.items())


def _traced(context: Context, table: Table, rows: pl.DataFrame, expected: int | None = None) -> Traced:
    origins = []
    if table.step == "decode":
        bronze = table.inputs[0]
        origins.append(_traced(context, bronze, _landed(context, bronze, rows), rows.select(_POSITION).n_unique()))
    elif rows.height:
        origins += [_traced(context, source, _read_by(context, table, source, rows)) for source in table.inputs]
    return Traced(table, rows, commits(context, table, rows), origins, expected)


def _landed(context: Context, bronze: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """The bronze rows at the landing positions of silver rows."""
    conditions = [Among(name, rows[name].unique().sort().to_list()) for name in ("stream", "sequence")]
    found = context.lakehouse.read(bronze.stored, *conditions)
    return found.join(rows.select(_POSITION).unique(), on=_POSITION, how="semi").sort(_POSITION)


def _read_by(context: Context, table: Table, source: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """The input rows that computed rows stand for; what else was looked at around them is not among them."""
    ranges = [_span(table, row) for row in rows.iter_rows(named=True)]
    conditions = (each for each in table.only if each.column in source.schema)
    found = context.lakehouse.read(source.stored, Ranges(str(source.time), ranges), *conditions)
    if _RETRACTED in found.columns:
        found = found.filter(~pl.col(_RETRACTED).fill_null(False))
    function = table.function.function if isinstance(table.function, Enriched) else table.function
    if isinstance(function, Pairing):
        sides = [side for side in (function.left, function.right) if table.inputs[side.source] is source]
        parts = [_of_side(found, rows, function, side) for side in sides]
        return pl.concat(parts).unique(maintain_order=True).sort(source.key)
    condition = getattr(table.function, "where", None)
    if condition is not None:
        found = found.filter(chosen(found, condition))
    same = _carried(table, source)
    wanted = rows.select(pl.col(own).alias(name) for name, own in same.items()).unique()
    return found.join(wanted, on=list(same), how="semi", nulls_equal=True).sort(source.key)


def _of_side(found: pl.DataFrame, rows: pl.DataFrame, function: Pairing, side: Side) -> pl.DataFrame:
    """The rows of one side of a join that pairs are made of."""
    met = found if side.where is None else found.filter(chosen(found, side.where))
    wanted = rows.select(*function.by, pl.col(side.at).alias(side.time)).unique()
    return met.join(wanted, on=wanted.columns, how="semi", nulls_equal=True)


def _carried(table: Table, source: Table) -> dict[str, str]:
    """Columns of the input that tell which of its rows a row stands for, and what the table calls them.

    Of a table whose rows are rows of the input, its key; else the series, and what else of the input's key is in the
    table's.
    """
    only = {c.name: c.lineage[0].rpartition(".") for c in table.columns if len(c.lineage) == 1}
    names = {own: column for own, (origin, _, column) in only.items() if origin == source.identifier}
    is_row = table.time == source.time and all(names.get(name) == name for name in source.key)
    if is_row or is_row_by_row(table):
        return {name: name for name in source.key if name != source.time or is_row_by_row(table)}
    told = {column: own for own, column in names.items() if own in table.key and column in source.key}
    return {name: name for name in table.series} | {n: own for n, own in told.items() if n != source.time}


def _span(table: Table, row: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The times [low, high) of the input that a computed row stands for."""
    start: datetime = row[str(table.time)]
    if END in row:
        return start, row[END]
    assert table.window is not None
    if table.window.has_episodes:
        last = row[CLEARED] or row[RAISED] or start
        return start - table.window.reach_ahead, last + _MICROSECOND
    return start - table.window.reach_ahead, start + table.window.size + table.window.reach_back


def commits(context: Context, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """What ops.batches says of the rows' commits; the newest ones, which are not there yet, from the table itself."""
    numbers = rows[BATCH_ID].unique().sort().to_list()
    recorded = context.lakehouse.read(
        batches.stored, Among("table_name", [table.identifier]), Among("table_batch_id", numbers)
    ).drop(BATCH_ID)
    missing = set(numbers) - set(recorded["table_batch_id"])
    newest = commits_of(context, table, min(missing) - 1) if missing else []
    rest = [commit for commit in newest if commit["table_batch_id"] in missing]
    return pl.concat([recorded, pl.DataFrame(rest, schema=recorded.schema)]).sort("table_batch_id")
