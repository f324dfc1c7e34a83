"""bronze.snmp_polls."""

from datetime import timedelta

import polars as pl

from assets.table import UTC_TIME, column, declare
from pipelines.collect.snmp_polls import RECORD
from resources.stored_table import Partition

snmp_polls = declare(
    layer="bronze",
    name="snmp_polls",
    description="""
        One row a poll of one module of an SNMP agent: whether it answered, how long it took, what it cost.

        Source: the SNMP collector (landing source `snmp_polls`). There is a row also where nothing was answered, so
        the newest row of a target tells whether it is up, and the newest row of all whether the collector runs. A
        silent agent is polled less and less often, up to every `snmp.backoff`.
    """,
    landing=RECORD,
    columns=(
        column("target", pl.String, "Polled agent as host:port", required=True),
        column("module", pl.String, "What was polled, by its name in the configuration", required=True),
        column("poll_id", pl.String, "UUID of the poll; its varbinds carry it too", required=True),
        column("is_up", pl.Boolean, "Whether the agent answered at all", required=True),
        column("duration_seconds", pl.Float64, "How long the poll took", required=True, minimum=0),
        column("pdus", pl.Int32, "PDUs sent", required=True, minimum=0),
        column("retries", pl.Int32, "How many of them were sent again", required=True, minimum=0),
        column("timeouts", pl.Int32, "How many of them nobody answered in time", required=True, minimum=0),
        column("varbinds", pl.Int32, "Varbinds answered and landed", required=True, minimum=0),
        column("missed", pl.Int32, "Slots missed since the poll before, which took too long", required=True, minimum=0),
        column("error", pl.String, "What went wrong, in words; null if nothing did"),
        column("started_at", UTC_TIME, "When the first PDU was sent", required=True),
        column("received_at", UTC_TIME, "When the poll ended", required=True),
    ),
    key=("stream", "sequence", "row"),
    time="received_at",
    partitions=(Partition("received_at", "hour"),),
    kinds=("iceberg", "bronze", "snmp"),
    freshness=timedelta(minutes=5),
)
