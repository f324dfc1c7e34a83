"""ops.watermarks."""

import polars as pl

from assets.table import UTC_TIME, column, declare

watermarks = declare(
    layer="ops",
    name="watermarks",
    description="""
        One row a sender of a silver table: how far its event time has come. Windows become final by it.

        Source: a side output of the silver commits; it can be rebuilt from silver.
    """,
    columns=(
        column("source", pl.String, "Silver table", required=True),
        column("sender", pl.String, "The values of the table's sender columns, joined by '/'", required=True),
        column("observed_at", UTC_TIME, "Highest event time of the sender", required=True),
        column("received_at", UTC_TIME, "When the collector last received from it", required=True),
    ),
    key=("source", "sender"),
    kinds=("iceberg", "ops"),
)
