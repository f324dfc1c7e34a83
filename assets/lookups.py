"""Lookups of calculations: rows are given the columns of a side input that were right at their time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from assets.aggregation import Aggregate, Aggregation, chosen
from assets.binding import Name
from assets.expressions import Expression, evaluate, nearest
from assets.side_input import VALID_FROM, VALID_TO, VERSION, Versions
from assets.table import UTC_TIME, Table
from resources.errors import ConfigurationError
from resources.strict_model import StrictModel, shown

Taken = Literal["event_time", "newest"]
_AT, _KEY = "__at", "__key"


class LookupDefinition(StrictModel):
    """``lookup = [{...}]`` of a calculation."""

    name: Name
    source: Annotated[str, Field(alias="from")]
    on: dict[str, str] = {}
    version: Taken = "event_time"


@dataclass(frozen=True)
class Lookup:
    """A side input beside the rows of a calculation. Its columns are called ``name.column``.

    Attributes:
        name: what it is called in expressions.
        reference: name of its table.
        key: its columns that must be equal to ``on``.
        on: the columns of the rows.
        taken: ``event_time``: the row that is right at the time of the calculation's row; ``newest``: the key's latest.
        columns: what the expressions read of it.
    """

    name: str
    reference: str
    key: tuple[str, ...]
    on: tuple[str, ...]
    taken: Taken
    columns: tuple[str, ...]

    @property
    def told(self) -> str:
        """Column of a calculation that keeps which version a row took."""
        return f"{self.name}_version"

    def onto(self, rows: pl.DataFrame, time: str, reference: pl.DataFrame) -> pl.DataFrame:
        """The rows, in another order, with the columns of the lookup; null where it has no row for them."""
        types = reference.schema
        keys = [f"{_KEY}{i}" for i in range(len(self.key))]
        left = rows.with_columns(
            pl.col(o).cast(types[k]).alias(n) for o, k, n in zip(self.on, self.key, keys, strict=True)
        )
        named = [pl.col(c).alias(f"{self.name}.{c}") for c in self.columns]
        right = reference.select(*(pl.col(k).alias(n) for k, n in zip(self.key, keys, strict=True)), *named, _span())
        right = right.unnest(_AT).sort(VALID_FROM)
        if self.taken == "newest":
            last = right.unique(keys, keep="last", maintain_order=True).drop(VALID_FROM, VALID_TO)
            return left.join(last, on=keys, how="left").drop(keys)
        ordered = left.with_columns(pl.col(time).alias(_AT)).sort(_AT)
        found = ordered.join_asof(
            right, left_on=_AT, right_on=VALID_FROM, by=keys, strategy="backward", check_sortedness=False
        )
        is_over = pl.col(VALID_TO) <= pl.col(_AT)
        names = [f"{self.name}.{c}" for c in self.columns]
        kept = (pl.when(~is_over.fill_null(False)).then(pl.col(n)).alias(n) for n in names)
        return found.with_columns(kept).select(*rows.columns, *names)


def _span() -> pl.Expr:
    return pl.struct(VALID_FROM, VALID_TO).alias(_AT)


@dataclass(frozen=True)
class Selection:
    """Computed columns beside some columns of each row. Callable and picklable.

    Attributes:
        kept: columns of the rows that are kept.
        where: condition on the rows.
        select: the computed columns.
    """

    kept: tuple[str, ...]
    where: Expression | None
    select: tuple[Aggregate, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it needs."""
        expressions = (*(a.expression for a in self.select), *([self.where] if self.where else []))
        return tuple(dict.fromkeys([*self.kept, *(name for e in expressions for name in e.columns)]))

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Returns one row for each row that meets the condition."""
        if self.where:
            rows = rows.filter(chosen(rows, self.where))
        columns = (f'CAST({a.expression.sql} AS {a.stored_as}) AS "{a.name}"' for a in self.select)
        return rows.select(self.kept).hstack(evaluate(f"SELECT {', '.join(columns)} FROM input", rows))


@dataclass(frozen=True)
class Enriched:
    """A function whose rows are first given the columns of lookups. Callable and picklable.

    Attributes:
        function: what is computed from the rows.
        time: the column of the rows' event time.
        lookups: what they are given.
    """

    function: Aggregation | Selection
    time: str
    lookups: tuple[Lookup, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it needs."""
        given = {f"{each.name}.{name}" for each in self.lookups for name in each.columns}
        own = (name for name in self.function.reads if name not in given)
        return tuple(dict.fromkeys([*own, self.time, *(name for each in self.lookups for name in each.on)]))

    def __call__(self, rows: pl.DataFrame, **references: pl.DataFrame) -> pl.DataFrame:
        """See the function; ``references`` are the side inputs by name."""
        for each in self.lookups:
            rows = each.onto(rows, self.time, references[each.reference])
        return self.function(rows)


def is_row_by_row(table: Table) -> bool:
    """Whether each row of a table is one row of its input with what was looked up."""
    return isinstance(table.function, Enriched) and isinstance(table.function.function, Selection)


def taken_newest(table: Table, reference: Table) -> bool:
    """Whether a calculation takes the newest rows of a side input, whatever its rows' time."""
    lookups = table.function.lookups if isinstance(table.function, Enriched) else ()
    return any(each.reference == reference.name and each.taken == "newest" for each in lookups)


@dataclass(frozen=True)
class Bound:
    """Lookups bound to their tables: what expressions may name beside the columns of the source."""

    wanted: tuple[LookupDefinition, ...]
    tables: tuple[Table, ...]
    on: tuple[tuple[str, ...], ...]

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """``name.column`` to type."""
        return {
            f"{each.name}.{name}": dtype
            for each, table in zip(self.wanted, self.tables, strict=True)
            for name, dtype in _readable(table).items()
        }

    @property
    def references(self) -> tuple[Table, ...]:
        """The tables, each once."""
        return tuple({table.identifier: table for table in self.tables}.values())

    @property
    def versions(self) -> dict[str, str]:
        """The columns that keep which version was taken, and the expressions that they are."""
        return {f"{each.name}_version": f"{each.name}.{VERSION}" for each in self.wanted}

    @property
    def lineage(self) -> dict[str, str]:
        """``name.column`` to the column of the table."""
        pairs = zip(self.wanted, self.tables, strict=True)
        return {f"{each.name}.{n}": f"{table.identifier}.{n}" for each, table in pairs for n in _readable(table)}

    def enriched(self, function: Aggregation | Selection, time: str) -> Enriched:
        """The function with these lookups before it."""
        read = set(function.reads)
        return Enriched(
            function,
            time,
            tuple(
                Lookup(
                    each.name,
                    table.name,
                    _key(table),
                    on,
                    each.version,
                    tuple(name for name in _readable(table) if f"{each.name}.{name}" in read),
                )
                for each, table, on in zip(self.wanted, self.tables, self.on, strict=True)
            ),
        )


def _key(table: Table) -> tuple[str, ...]:
    assert isinstance(table.function, Versions)
    return table.function.key


def _readable(table: Table) -> dict[str, pl.DataType]:
    assert isinstance(table.function, Versions)
    return {**table.function.columns, VALID_FROM: UTC_TIME, VERSION: pl.Int64()}


def bind(
    wanted: Sequence[LookupDefinition], source: Table, names: Sequence[str], tables: Mapping[str, Table], place: str
) -> Bound:
    """Finds the tables of lookups and the columns that they are looked up by.

    Raises:
        ConfigurationError: a table is no side input, a column is missing, or its type is another.
    """
    known = {i: t for i, t in sorted(tables.items()) if isinstance(t.function, Versions)}
    found, on = [], []
    for index, each in enumerate(wanted):
        here = f"{place}: lookup[{index}]"
        if each.name in [other.name for other in wanted[:index]]:
            raise ConfigurationError(f"{here}.name {shown(each.name)} stands twice; expressions tell lookups by it")
        if each.source not in known:
            raise ConfigurationError(
                f"{here}.from: {shown(each.source)} is no side input; {nearest(each.source, list(known))}"
            )
        found.append(known[each.source])
        on.append(_on(each, known[each.source], source, names, here))
    return Bound(tuple(wanted), tuple(found), tuple(on))


def _on(wanted: LookupDefinition, table: Table, source: Table, names: Sequence[str], place: str) -> tuple[str, ...]:
    key = _key(table)
    for name in wanted.on:
        if name not in key:
            raise ConfigurationError(
                f"{place}.on: {shown(name)} is not in the key of {table.identifier}: {nearest(name, key)}"
            )
    columns = tuple(wanted.on.get(name, name) for name in key)
    for name, column in zip(key, columns, strict=True):
        if column not in names:
            raise ConfigurationError(
                f"{place}.on: {table.identifier} is looked up by {name!r}, and {shown(column)} is no column of "
                f"{source.identifier}: {nearest(column, names)}; write on = {{{name} = 'column'}}"
            )
        have, want = source.schema[column], table.schema[name]
        if have != want and not (have.is_integer() and want.is_integer()):
            raise ConfigurationError(
                f"{place}.on: {column!r} of {source.identifier} is {have}, but {name!r} of {table.identifier} is {want}"
            )
    return columns
