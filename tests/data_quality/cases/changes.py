"""Changes that make good rows bad."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Change = Callable[[pl.DataFrame], pl.DataFrame]
Case = tuple[Change, str]
"""A change, and how the description of the expectation starts that is not met then."""


def put(**values: Any) -> Change:
    """Changes the first row."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        bad = rows[:1].with_columns(pl.lit(value, rows.schema[name]).alias(name) for name, value in values.items())
        return pl.concat([bad, rows[1:]])

    return change


def convert(name: str, dtype: Any) -> Change:
    return lambda rows: rows.with_columns(pl.col(name).cast(dtype))


def every(**values: Any) -> Change:
    return lambda rows: rows.with_columns(**{name: pl.lit(value) for name, value in values.items()})


def twice(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows[:1]])
