"""bronze.snmp_traps."""

import polars as pl

from assets.table import UTC_TIME, column, declare
from pipelines.collect.snmp_traps import RECORD
from resources.stored_table import Partition

snmp_traps = declare(
    layer="bronze",
    name="snmp_traps",
    description="""
        One row a datagram that came to the trap port, byte for byte: a trap or an INFORM of v1, v2c or v3, readable or
        not.

        Source: the trap collector (landing source `snmp_traps`).
    """,
    landing=RECORD,
    columns=(
        column("listener", pl.String, "Where it was received, as host:port", required=True),
        column("source_address", pl.String, "Address that it came from", required=True),
        column("source_port", pl.Int32, "UDP port that it came from", required=True),
        column("datagram", pl.Binary, "The datagram as it came", required=True),
        column("received_at", UTC_TIME, "When it reached the collector", required=True),
    ),
    key=("stream", "sequence", "row"),
    time="received_at",
    partitions=(Partition("received_at", "hour"),),
    kinds=("iceberg", "bronze", "snmp"),
)
