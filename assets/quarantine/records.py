"""quarantine.records."""

import polars as pl

from assets.table import UTC_TIME, column, declare
from resources.stored_table import Partition

records = declare(
    layer="quarantine",
    name="records",
    description="""
        One row a record that a stage could not use, with the reason and the raw bytes.
        `secchi replay` asks for it again.

        Source: every stage. A record that was brought in by a replay stays here with `replayed_by` set.
    """,
    columns=(
        column(
            "record_id", pl.String, "Stage and landing position, so the same record is never here twice", required=True
        ),
        column("stage", pl.String, "Table that could not take it", required=True),
        column("source", pl.String, "Table or landing source it came from", required=True),
        column("reason", pl.String, "Reason code: invalid_json, missing_field, key_conflict, ...", required=True),
        column("message", pl.String, "What is wrong, with field and value", required=True),
        column("raw", pl.Binary, "The bytes as they came", required=True),
        column("attributes", pl.String, "The other columns of the source row as JSON (topic, received_at, ...)"),
        column("stream", pl.String, "Landing stream", required=True),
        column("sequence", pl.Int64, "Landing segment", required=True),
        column("row", pl.Int32, "Row in the segment; -1 for a whole segment", required=True),
        column("quarantined_at", UTC_TIME, "When it was put here", required=True),
        column("replayed_by", pl.String, "The request whose replay took it; null while it waits"),
    ),
    key=("record_id",),
    sort=("stage", "reason", "record_id"),
    partitions=(Partition("quarantined_at", "day"),),
    kinds=("iceberg", "quarantine"),
)
