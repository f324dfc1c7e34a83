"""ops.batches."""

import polars as pl

from assets.table import UTC_TIME, column, declare
from resources.stored_table import Partition

batches = declare(
    layer="ops",
    name="batches",
    description="""
        One row a commit of any table: which range of its inputs it took, in which snapshot and run. Outlives both.

        Source: the snapshot summaries, copied at the end of each micro-batch and before snapshots expire.
    """,
    columns=(
        column("table_name", pl.String, "Table that was committed to", required=True),
        column("table_batch_id", pl.Int64, "Its batch_id", required=True),
        column(
            "producer",
            pl.String,
            "Whose plan it was: the table itself, or the table it is a side output of",
            required=True,
        ),
        column(
            "from_marker",
            pl.String,
            "Position of the producer before, JSON: input to batch_id or segment",
            required=True,
        ),
        column("to_marker", pl.String, "Position after", required=True),
        column("snapshot_id", pl.Int64, "Iceberg snapshot of the commit", required=True),
        column("committed_at", UTC_TIME, "Timestamp of the snapshot", required=True),
        column("run_id", pl.String, "Dagster run, or the name of the process"),
        column("rows", pl.Int64, "Rows that the commit wrote, rewritten neighbours included"),
        column("segments", pl.String, "Bronze only: JSON, landing segment to SHA-256 of its bytes"),
    ),
    key=("table_name", "table_batch_id"),
    partitions=(Partition("committed_at", "day"),),
    kinds=("iceberg", "ops"),
)
