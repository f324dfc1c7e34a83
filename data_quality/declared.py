"""The expectations of a table that follow from its declaration: columns, key, types, required values, ranges, lag."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import polars as pl

from assets.table import Column, Table

LAG_SECONDS = 300
_LAG = "lag_seconds"


def expectation_types() -> Any:
    """The classes of ``great_expectations.expectations``, which its type hints do not export."""
    return import_module("great_expectations.expectations")


def with_lag(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """Adds ``lag_seconds`` where the declaration has both times: how long a row was on its way."""
    if not (way := _way(table)) or not set(way) <= set(frame.columns):
        return frame
    since, until = (pl.col(name) for name in way)
    if not all(frame.schema[name].is_temporal() for name in way):
        return frame
    return frame.with_columns(((until - since).dt.total_microseconds() / 1e6).alias(_LAG))


def _way(table: Table) -> tuple[str, str] | None:
    """Between which times a row is on its way: from the sender to the collector, or from there into bronze."""
    if table.layer == "bronze" and "received_at" in table.schema:
        return "received_at", "ingested_at"
    if table.layer == "silver" and table.time not in (None, "received_at"):
        return str(table.time), "received_at"
    return None


def declared_expectations(table: Table, frame: pl.DataFrame) -> Iterator[Any]:
    """What the declaration says. Values are only expected of columns that are there; a missing column fails once."""
    gxe = expectation_types()
    yield gxe.ExpectTableColumnsToMatchSet(
        column_set=list(table.schema), exact_match=False, description="The table has every declared column"
    )
    if set(table.key) <= set(frame.columns):
        yield _unique_key(table)
    for column in table.columns:
        if column.name in frame.columns:
            yield from _of_column(column, table.schema[column.name])
    if _LAG in frame.columns:
        # A historic load, or what a collector has kept while nothing was processed, is late and right.
        yield gxe.ExpectColumnMedianToBeBetween(
            column=_LAG,
            max_value=LAG_SECONDS,
            severity="warning",
            description=f"Half of the rows come from {' to '.join(_way(table) or ())} within {LAG_SECONDS} s",
        )


def _unique_key(table: Table) -> Any:
    gxe = expectation_types()
    description = f"No two rows have the same {', '.join(table.key)}"
    if len(table.key) == 1:
        return gxe.ExpectColumnValuesToBeUnique(column=table.key[0], description=description)
    return gxe.ExpectCompoundColumnsToBeUnique(
        column_list=list(table.key), ignore_row_if="never", description=description
    )


def _of_column(column: Column, dtype: pl.DataType) -> Iterator[Any]:
    gxe = expectation_types()
    if expected := _python_type(dtype):
        yield gxe.ExpectColumnValuesToBeOfType(
            column=column.name, type_=expected, description=f"{column.name} is {dtype.base_type()}"
        )
    if column.required:
        yield gxe.ExpectColumnValuesToNotBeNull(column=column.name, description=f"{column.name} is never null")
    if column.minimum is not None or column.maximum is not None:
        low = "any" if column.minimum is None else column.minimum
        high = "any" if column.maximum is None else column.maximum
        yield gxe.ExpectColumnValuesToBeBetween(
            column=column.name,
            min_value=column.minimum,
            max_value=column.maximum,
            description=f"{column.name} is from {low} to {high}",
        )


def _python_type(dtype: pl.DataType) -> str | None:
    """The type as Great Expectations names it in a pandas frame of Arrow columns; None for nested types."""
    if dtype.is_integer():
        return "int"
    if dtype.is_float():
        return "float"
    names = {pl.String: "str", pl.Boolean: "bool", pl.Binary: "bytes", pl.Datetime: "Timestamp"}
    return names.get(dtype.base_type())
