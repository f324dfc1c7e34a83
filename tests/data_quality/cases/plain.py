"""A table with one key column and each type and rule: what every declaration may say."""

import polars as pl

from assets.table import UTC_TIME, column, declare
from tests.data_quality.cases.changes import NOON, Case, convert, put, twice

TABLE = declare(
    layer="gold",
    name="plain",
    description="A table with one key column & each type.",
    columns=(
        column("name", pl.String, "Name", required=True),
        column("is_on", pl.Boolean, "On"),
        column("raw", pl.Binary, "Bytes"),
        column("count", pl.Int32, "Count", minimum=0),
        column("share", pl.Float64, "Share", maximum=1),
        column("seen_at", UTC_TIME, "Time"),
        column("labels", pl.List(pl.String), "Labels"),
    ),
    key=("name",),
)


def rows() -> pl.DataFrame:
    row = {"is_on": True, "raw": b"\xff", "count": 1, "share": 0.5, "seen_at": NOON, "labels": ["x"], "batch_id": 1}
    return pl.DataFrame([{"name": f"n{n}", **row} for n in range(10)], schema=TABLE.schema)


BAD: list[Case] = [
    (lambda rows: rows.drop("count"), "The table has every declared column"),
    (twice, "No two rows have the same name"),
    (put(name=None), "name is never null"),
    (put(batch_id=None), "batch_id is never null"),
    (convert("name", pl.Binary), "name is String"),
    (convert("is_on", pl.Int8), "is_on is Boolean"),
    (lambda rows: rows.with_columns(raw=pl.lit("x")), "raw is Binary"),
    (convert("count", pl.Float64), "count is Int32"),
    (convert("share", pl.Int64), "share is Float64"),
    (convert("seen_at", pl.String), "seen_at is Datetime"),
    (convert("batch_id", pl.String), "batch_id is Int64"),
    (put(count=-1), "count is from 0 to any"),
    (put(share=1.5), "share is from any to 1"),
]
