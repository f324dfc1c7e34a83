"""Expressions of declarations bound to the columns of tables: what type they give, and whether it can be stored."""

import re
from collections.abc import Mapping
from typing import Annotated

import duckdb
import polars as pl
from pydantic import Field

from assets.aggregation import Aggregate
from assets.expressions import Expression, nearest, parse_expression
from assets.table import UTC_TIME, Table
from assets.windowing import GROUP, HELD, POSITION, SECONDS
from resources.errors import ConfigurationError
from resources.strict_model import shortened, shown

_LANDING_ORDER = ("stream", "sequence", "row")
# Columns that change when a row is written again: a calculation over them would never come to rest.
UNSTABLE = frozenset({"batch_id", "is_final", "revision", "corrected_at", "is_retracted"})
STORED_TYPES: dict[str, pl.DataType] = {
    "BOOLEAN": pl.Boolean(),
    "INTEGER": pl.Int32(),
    "BIGINT": pl.Int64(),
    "FLOAT": pl.Float32(),
    "DOUBLE": pl.Float64(),
    "VARCHAR": pl.String(),
    "DATE": pl.Date(),
    "TIMESTAMP WITH TIME ZONE": UTC_TIME,
    "BIGINT[]": pl.List(pl.Int64()),
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
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]


class Binder:
    """Asks DuckDB for the types of expressions over a table, on no rows."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, schema: Mapping[str, pl.DataType], names: list[str]
    ) -> None:
        self._connection, self._names = connection, names
        derived = {GROUP: pl.UInt32(), POSITION: pl.UInt32(), SECONDS: pl.Float64(), HELD: pl.Int64()}
        connection.register("input", pl.DataFrame(schema={**schema, **derived}).to_arrow())

    def _type(self, query: str, place: str) -> str:
        try:
            return str(self._connection.sql(query).types[0])
        except duckdb.Error as error:
            raise ConfigurationError(f"{place}: {shortened(str(error).splitlines()[0], _REASON_CHARACTERS)}") from error

    def condition(self, text: str, place: str) -> Expression:
        """A condition on a row."""
        parsed = parse_expression(self._connection, text, self._names, place)
        if (found := self._type(f"SELECT {parsed.sql} FROM input", place)) != "BOOLEAN":
            raise ConfigurationError(f"{place} must be a condition, got {shown(text)}, which is {found}")
        self._type(f"SELECT 1 FROM input WHERE {parsed.sql}", place)
        return parsed

    def value(self, name: str, text: str, place: str) -> Aggregate:
        """A column computed from one row."""
        parsed = parse_expression(self._connection, text, self._names, place)
        self._type(f"SELECT 1 FROM input WHERE ({parsed.sql}) IS NULL", place)
        return self._as_stored(name, parsed, self._type(f"SELECT {parsed.sql} FROM input", place), text, place)

    def aggregate(self, name: str, text: str, place: str) -> Aggregate:
        """A column computed from the rows of a group."""
        parsed = parse_expression(self._connection, text, self._names, place)
        found = self._type(f"SELECT {parsed.sql} FROM input GROUP BY {GROUP}", place)
        return self._as_stored(name, parsed, found, text, place)

    @staticmethod
    def _as_stored(name: str, parsed: Expression, found: str, text: str, place: str) -> Aggregate:
        stored_as = _CASTS.get(found.split("(")[0], found)
        if stored_as not in STORED_TYPES:
            raise ConfigurationError(
                f"{place} must give a number, text, boolean, time or histogram, got {shown(text)}, which is {found}"
            )
        return Aggregate(name, parsed, stored_as)

    def stored(self, text: str, place: str) -> str:
        """The type of a column that a function returns."""
        try:
            found = str(self._connection.sql(f"SELECT CAST(NULL AS {_type_name(text, place)})").types[0])
        except duckdb.Error as error:
            raise ConfigurationError(f"{place} must be a type, got {shown(text)}; {_one_of(text)}") from error
        stored_as = _CASTS.get(found.split("(")[0], found)
        if stored_as not in STORED_TYPES:
            raise ConfigurationError(f"{place} must be a type that is stored, got {shown(text)}; {_one_of(text)}")
        return stored_as


def _type_name(text: str, place: str) -> str:
    if not re.fullmatch(r"[A-Za-z ]+(\[\])?", text):
        raise ConfigurationError(f"{place} must be a type, got {shown(text)}; {_one_of(text)}")
    return text


def _one_of(text: str) -> str:
    return nearest(text.upper(), list(STORED_TYPES))


def total_order(upstream: Table, by: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that put the rows of a series into one order, event time first."""
    time = str(upstream.time)
    if {*upstream.key} <= {*by, time}:
        return (time,)
    places = [name for name in _LANDING_ORDER if name in upstream.schema]
    return tuple(dict.fromkeys([time, *places, *(name for name in upstream.key if name not in by)]))
