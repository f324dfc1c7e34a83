"""Declared calculations: a ``[[calculation]]`` of TOML becomes a gold table like one that is written in Python."""

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import duckdb
import polars as pl
from pydantic import AfterValidator, Field, ValidationError, field_validator

from assets.expressions import POSITION, Expression, nearest, open_sandbox, parse_expression
from assets.table import MINUTE, UTC_TIME, Column, Table, Window, column, declare
from resources.durations import Duration, spelled
from resources.errors import ConfigurationError
from resources.stored_table import Partition
from resources.strict_model import StrictModel, first_mistake, shortened, shown

START, END = "window_start", "window_end"
_GROUP, _SERIES = "__group", "__series"
_LANDING_ORDER = ("stream", "sequence", "row")
# Columns that change when a row is written again: a calculation over them would never come to rest.
_UNSTABLE = frozenset({"batch_id", "is_final", "revision", "corrected_at"})
_RESERVED = _UNSTABLE | {START, END}
_STORED_TYPES: dict[str, pl.DataType] = {
    "BOOLEAN": pl.Boolean(),
    "INTEGER": pl.Int32(),
    "BIGINT": pl.Int64(),
    "FLOAT": pl.Float32(),
    "DOUBLE": pl.Float64(),
    "VARCHAR": pl.String(),
    "DATE": pl.Date(),
    "TIMESTAMP WITH TIME ZONE": UTC_TIME,
}
# A sum of integers is as wide as all of them need; where that does not fit, a float that is near is better than a batch
# that fails. Who wants an integer writes cast(sum(x) as bigint).
_CASTS = {
    "TINYINT": "INTEGER",
    "SMALLINT": "INTEGER",
    "UTINYINT": "INTEGER",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DOUBLE",
    "HUGEINT": "DOUBLE",
    "UHUGEINT": "DOUBLE",
    "DECIMAL": "DOUBLE",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
}
_REASON_CHARACTERS = 300
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]


def _positive(value: timedelta) -> timedelta:
    if value < timedelta(milliseconds=1):
        raise ValueError(f"must be at least 1 ms, got {value.total_seconds():g} s")
    return value


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError(f"must not be negative, got {value.total_seconds():g} s")
    return value


class _Windowing(StrictModel):
    kind: Literal["tumbling"]
    size: Annotated[Duration, AfterValidator(_positive)]

    @field_validator("kind", mode="before")
    @classmethod
    def _available(cls, value: Any) -> Any:
        if value in ("sliding", "session"):
            raise ValueError(f"is not available yet: must be 'tumbling', got {shown(value)}")
        return value


class _Definition(StrictModel):
    """``[[calculation]]``."""

    name: _Name
    description: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[str, Field(alias="from")]
    where: str | None = None
    by: Annotated[list[str], Field(min_length=1)]
    window: _Windowing
    lateness: Annotated[Duration, AfterValidator(_not_negative)] = timedelta(0)
    aggregate: Annotated[dict[_Name, str], Field(min_length=1)]

    @field_validator("aggregate")
    @classmethod
    def _free_names(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted(_RESERVED & value.keys()):
            raise ValueError(f"may not be named {taken[0]!r}; every window has a column of that name")
        return value


def _described(wanted: _Definition) -> str:
    rows = f"of `{wanted.source}`" + (f" where {wanted.where}" if wanted.where else "")
    return f"One row a series ({', '.join(wanted.by)}) and window of {spelled(wanted.window.size)}, {rows}."


@dataclass(frozen=True)
class Aggregate:
    """One computed column: its name, its expression, and the type in which it is stored (DuckDB's name for it)."""

    name: str
    expression: Expression
    stored_as: str


@dataclass(frozen=True)
class Aggregation:
    """The function of a calculation: rows of the source in, one row a series and window out.

    Callable, and picklable so that it can be sent to a worker.

    Attributes:
        by: columns of the source that name a series.
        time: the source's column of event time.
        order: columns that order the rows of a series totally, ``time`` first.
        every: size of a window; windows are aligned to 1970-01-01 UTC.
        where: condition on rows of the source.
        aggregates: the computed columns.
    """

    by: tuple[str, ...]
    time: str
    order: tuple[str, ...]
    every: timedelta
    where: Expression | None
    aggregates: tuple[Aggregate, ...]

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Returns by, window_start, window_end and the aggregates, sorted by series and start."""
        windows, grouped = self._group(rows)
        with open_sandbox() as connection:
            connection.register("input", grouped.to_arrow(compat_level=pl.CompatLevel.newest()))
            computed = pl.DataFrame(connection.sql(self.query).to_arrow_table())
        # A window of which `where` leaves no row has no group there.
        return windows[computed[_GROUP]].hstack(computed.drop(_GROUP))

    @property
    def query(self) -> str:
        """The query over ``input``, whose rows are numbered by group and position."""
        columns = (f'CAST({a.expression.sql} AS {a.stored_as}) AS "{a.name}"' for a in self.aggregates)
        condition = f" WHERE {self.where.sql}" if self.where else ""
        return f"SELECT {_GROUP}, {', '.join(columns)} FROM input{condition} GROUP BY {_GROUP} ORDER BY {_GROUP}"

    def _group(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The windows of the rows, and the rows in their total order, each with the number of its window."""
        expressions = (*(a.expression for a in self.aggregates), *([self.where] if self.where else []))
        read = dict.fromkeys(name for expression in expressions for name in expression.columns)
        # One number for all columns of the series: sorting by it takes half the time.
        series = rows.select(self.by).unique().sort(self.by).with_row_index(_SERIES)
        start = pl.col(self.time).dt.truncate(f"{self.every // timedelta(microseconds=1)}us")
        ordered = (
            rows.select(*dict.fromkeys([*self.by, *self.order, *read]))
            .join(series, on=list(self.by), how="left", nulls_equal=True)
            .select(_SERIES, *dict.fromkeys([*self.order, *read]))
            .sort(_SERIES, *self.order)
            .with_columns(start.alias(START))
            .with_columns(pl.struct(_SERIES, START).rle_id().alias(_GROUP))
        )
        firsts = ordered.filter(pl.col(_GROUP).ne_missing(pl.col(_GROUP).shift(1)))
        windows = (
            series[firsts[_SERIES]]
            .select(self.by)
            .hstack(firsts.select(START, (pl.col(START) + self.every).alias(END)))
        )
        return windows, ordered.select(_GROUP, *read).with_row_index(POSITION)


def _validated(definition: Mapping[str, Any], source: str) -> _Definition:
    try:
        return _Definition.model_validate(dict(definition))
    except ValidationError as error:
        place = f"{source}: calculation {shown(definition.get('name'))}"
        raise ConfigurationError(f"{place}: {first_mistake(error)}") from error


def _upstream(wanted: _Definition, tables: Mapping[str, Table], place: str) -> Table:
    usable = {name: table for name, table in sorted(tables.items()) if table.time and table.sender}
    if wanted.source not in usable:
        what = "has no senders whose time decides when a window is final" if wanted.source in tables else "is no table"
        raise ConfigurationError(
            f"{place}: from: {shown(wanted.source)} {what}; {nearest(wanted.source, list(usable))}"
        )
    return usable[wanted.source]


def _checked_by(wanted: _Definition, upstream: Table, names: list[str], place: str) -> tuple[str, ...]:
    for name in wanted.by:
        if name not in names:
            raise ConfigurationError(f"{place}: by names {shown(name)}, which is no column: {nearest(name, names)}")
    if missing := [name for name in upstream.sender if name not in wanted.by]:
        why = f"which tells senders of {upstream.identifier} apart: its sender's time decides when a window is final"
        raise ConfigurationError(f"{place}: by must name {missing[0]!r}, {why}; got {shown(wanted.by)}")
    if taken := wanted.aggregate.keys() & {*wanted.by}:
        raise ConfigurationError(f"{place}: aggregate.{min(taken)} has the name of a column in by; choose another")
    return tuple(dict.fromkeys(wanted.by))


class _Binder:
    """Asks DuckDB for the types of expressions over a table, on no rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, upstream: Table, names: list[str]) -> None:
        self._connection, self._names = connection, names
        schema = {**upstream.schema, _GROUP: pl.UInt32(), POSITION: pl.UInt32()}
        connection.register("input", pl.DataFrame(schema=schema).to_arrow())

    def _type(self, query: str, place: str) -> str:
        try:
            return str(self._connection.sql(query).types[0])
        except duckdb.Error as error:
            raise ConfigurationError(f"{place}: {shortened(str(error).splitlines()[0], _REASON_CHARACTERS)}") from error

    def condition(self, text: str, place: str) -> Expression:
        parsed = parse_expression(self._connection, text, self._names, place)
        if (found := self._type(f"SELECT {parsed.sql} FROM input", place)) != "BOOLEAN":
            raise ConfigurationError(f"{place} must be a condition, got {shown(text)}, which is {found}")
        self._type(f"SELECT 1 FROM input WHERE {parsed.sql}", place)
        return parsed

    def aggregate(self, name: str, text: str, place: str) -> Aggregate:
        parsed = parse_expression(self._connection, text, self._names, place)
        found = self._type(f"SELECT {parsed.sql} FROM input GROUP BY {_GROUP}", place)
        stored_as = _CASTS.get(found.split("(")[0], found)
        if stored_as not in _STORED_TYPES:
            raise ConfigurationError(
                f"{place} must give a number, text, boolean or time, got {shown(text)}, which is {found}"
            )
        return Aggregate(name, parsed, stored_as)


def _columns(
    wanted: _Definition, upstream: Table, by: tuple[str, ...], where: Expression | None, aggregates: list[Aggregate]
) -> tuple[Column, ...]:
    origin, declared = upstream.identifier, {c.name: c for c in upstream.columns}
    time = f"{origin}.{upstream.time}"
    condition = where.columns if where else ()
    limited = f" where {wanted.where}" if where else ""
    return (
        *(replace(declared[name], lineage=(f"{origin}.{name}",)) for name in by),
        column(
            START, UTC_TIME, "Start of the window, UTC; rows at it belong to the window", required=True, lineage=time
        ),
        column(
            END, UTC_TIME, "End of the window, UTC; rows at it do not belong to the window", required=True, lineage=time
        ),
        *(
            column(
                a.name,
                _STORED_TYPES[a.stored_as],
                f"`{wanted.aggregate[a.name]}`{limited}",
                required=a.expression.never_null,
                lineage=tuple(f"{origin}.{n}" for n in dict.fromkeys((*a.expression.columns, *condition))) or time,
            )
            for a in aggregates
        ),
    )


def _total_order(upstream: Table, by: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that put the rows of a series into one order, event time first."""
    time = str(upstream.time)
    if {*upstream.key} <= {*by, time}:
        return (time,)
    places = [name for name in _LANDING_ORDER if name in upstream.schema]
    return tuple(dict.fromkeys([time, *places, *(name for name in upstream.key if name not in by)]))


def calculation(definition: Mapping[str, Any], tables: Mapping[str, Table], source: str) -> Table:
    """Builds the gold table that a ``[[calculation]]`` of the file ``source`` declares over one of ``tables``.

    Expressions are SQL in DuckDB's dialect (see ``assets.expressions``). The table's function takes rows of the source
    table in any order; the same rows give the same bits. Windows are aligned to 1970-01-01 UTC.

    Raises:
        ConfigurationError: one line naming file, calculation, key, value and what is accepted.
    """
    wanted = _validated(definition, source)
    place = f"{source}: calculation {wanted.name!r}"
    upstream = _upstream(wanted, tables, place)
    names = [c.name for c in upstream.columns if c.name not in _UNSTABLE]
    by = _checked_by(wanted, upstream, names, place)
    with open_sandbox() as connection:
        binder = _Binder(connection, upstream, names)
        where = binder.condition(wanted.where, f"{place}: where") if wanted.where else None
        aggregates = [binder.aggregate(n, t, f"{place}: aggregate.{n}") for n, t in wanted.aggregate.items()]
    size = wanted.window.size
    order = _total_order(upstream, by)
    return declare(
        layer="gold",
        name=wanted.name,
        description=wanted.description or _described(wanted),
        columns=_columns(wanted, upstream, by, where, aggregates),
        key=(*by, START),
        inputs=(upstream,),
        function=Aggregation(by, str(upstream.time), order, size, where, tuple(aggregates)),
        series=by,
        time=START,
        window=Window(size=size, lateness=wanted.lateness),
        partitions=(Partition(START, "hour" if size <= MINUTE else "day"),),
        kinds=("iceberg", "gold", "duckdb"),
        freshness=timedelta(minutes=5) + size + wanted.lateness,
    )


def _declared(identifier: str) -> dict[str, Table]:
    """The table of that name among those that ship, by name; empty if there is none."""
    layer, _, name = identifier.partition(".")
    if layer == "gold" and name in built_in_names():
        return {identifier: built_in(name)}
    if not name.isidentifier() or importlib.util.find_spec(f"assets.{layer}") is None:
        return {}
    if importlib.util.find_spec(f"assets.{layer}.{name}") is None:
        return {}
    return {identifier: getattr(importlib.import_module(f"assets.{layer}.{name}"), name)}


def built_in_names() -> list[str]:
    """The calculations that ship, one file each in ``assets/gold``."""
    return sorted(f.name.removesuffix(".toml") for f in files("assets.gold").iterdir() if f.name.endswith(".toml"))


@cache
def built_in(name: str) -> Table:
    """Returns the table of ``assets/gold/<name>.toml``; the same object each time.

    Raises:
        ConfigurationError: the file does not declare exactly that table, or has a mistake.
    """
    source = f"assets/gold/{name}.toml"
    definitions = tomllib.loads(files("assets.gold").joinpath(f"{name}.toml").read_text("utf-8")).get("calculation", [])
    found = [d.get("name") for d in definitions]
    if found != [name]:
        raise ConfigurationError(f"{source}: must declare one calculation, named {name!r} like the file; got {found}")
    return calculation(definitions[0], _declared(str(definitions[0].get("from"))), source)
