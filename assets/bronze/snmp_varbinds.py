"""bronze.snmp_varbinds."""

from datetime import timedelta

import polars as pl

from assets.table import UTC_TIME, column, declare
from pipelines.collect.snmp import RECORD
from resources.stored_table import Partition

snmp_varbinds = declare(
    layer="bronze",
    name="snmp_varbinds",
    description="""
        One row a variable binding (varbind) of an answered SNMP poll, its value as the BER content octets
        of the answer.

        Source: the SNMP collector (landing source `snmp_varbinds`).
    """,
    landing=RECORD,
    columns=(
        column("target", pl.String, "Polled agent as host:port", required=True),
        column("poll_id", pl.String, "UUID of the poll that asked", required=True),
        column("request_id", pl.Int64, "request-id of the PDU that answered (RFC 3416 section 3)", required=True),
        column("oid", pl.String, "Object identifier, numeric, instance included, no leading dot", required=True),
        column(
            "wire_type", pl.String, "ASN.1 type as answered: Counter32, OctetString, noSuchInstance, ...", required=True
        ),
        column(
            "value",
            pl.Binary,
            "Content octets of the BER encoding (X.690 section 8), empty for the exceptions",
            required=True,
        ),
        column("received_at", UTC_TIME, "When the answer reached the collector", required=True),
    ),
    key=("stream", "sequence", "row"),
    time="received_at",
    partitions=(Partition("received_at", "hour"),),
    kinds=("iceberg", "bronze", "snmp"),
    freshness=timedelta(minutes=5),
)
