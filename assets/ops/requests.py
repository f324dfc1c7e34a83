"""ops.requests."""

import polars as pl

from assets.table import UTC_TIME, column, declare

requests = declare(
    layer="ops",
    name="requests",
    description="""
        One row a request to compute something again: a replay of quarantined records, a rebuild of a time range, a
        training of the anomaly model.

        Source: the command line, and the check for drift. The named table's own plan takes it along with live data; a
        sensor starts a training.
    """,
    columns=(
        column("request_id", pl.String, "UUID of the request", required=True),
        column("table_name", pl.String, "Table that is asked; of a training, the model's asset", required=True),
        column("kind", pl.String, "replay, rebuild or training", required=True),
        column(
            "selection",
            pl.String,
            "JSON: {reason} of a replay or training; {from, to} of a rebuild, null being an open end",
            required=True,
        ),
        column("requested_at", UTC_TIME, "When it was asked for", required=True),
    ),
    key=("request_id",),
    kinds=("iceberg", "ops"),
)
