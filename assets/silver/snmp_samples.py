"""silver.snmp_samples."""

from datetime import timedelta

import polars as pl

from assets.bronze.snmp_varbinds import snmp_varbinds
from assets.reference.mib_objects import mib_objects
from assets.snmp_objects import decode_varbinds
from assets.snmp_values import no_value_message
from assets.table import UTC_TIME, Outputs, column, table
from resources.stored_table import Partition

_POSITION = ("stream", "sequence", "row")
_OID = "bronze.snmp_varbinds.oid"
_VALUE = ("bronze.snmp_varbinds.value", "bronze.snmp_varbinds.wire_type")

_COLUMNS = (
    column("device_id", pl.String, "Agent as host:port", required=True, lineage="bronze.snmp_varbinds.target"),
    column("metric_oid", pl.String, "Numeric OID with instance, no leading dot", required=True, lineage=_OID),
    column(
        "object_name",
        pl.String,
        "Name of the object, e.g. ifHCInOctets; null if it is not in the MIB table",
        lineage=(_OID, "reference.mib_objects.object_name"),
    ),
    column(
        "instance_identifier",
        pl.String,
        "All sub-identifiers behind the object, e.g. 0 or 3; null if the object is not known",
        lineage=(_OID, "reference.mib_objects.oid"),
    ),
    column(
        "instance",
        pl.String,
        "The row's INDEX values, comma between; null if the instance is not of the object's INDEX",
        lineage=(_OID, "reference.mib_objects.index_columns"),
    ),
    column("mib_module", pl.String, "Module of the object", lineage=(_OID, "reference.mib_objects.mib_module")),
    column(
        "data_type", pl.String, "Wire type, e.g. Counter64", required=True, lineage="bronze.snmp_varbinds.wire_type"
    ),
    column(
        "metric_value",
        pl.String,
        "Decimal number, text, dotted OID or address, by the object's DISPLAY-HINT; DateAndTime in ISO 8601; octets "
        "that are no text as 0x and hex; TimeTicks in 0.01 s",
        required=True,
        lineage=(*_VALUE, "reference.mib_objects.display_hint", "reference.mib_objects.textual_convention"),
    ),
    column(
        "numeric_value", pl.Float64, "The number as sent, rounded above 2^53; null if there is none", lineage=_VALUE
    ),
    column("counter_value", pl.Decimal(20, 0), "The exact count of a Counter32 or Counter64", lineage=_VALUE),
    column(
        "enum_label",
        pl.String,
        "Name of the value, e.g. up, or of the bits that are set, comma between; null if it has none",
        lineage=(*_VALUE, "reference.mib_objects.enumeration"),
    ),
    column(
        "request_id",
        pl.Int64,
        "request-id of the PDU that answered",
        required=True,
        lineage="bronze.snmp_varbinds.request_id",
    ),
    column("poll_id", pl.String, "UUID of the poll that asked", required=True, lineage="bronze.snmp_varbinds.poll_id"),
    column(
        "observed_at",
        UTC_TIME,
        "When the answer reached the collector: agents send no time of their own",
        required=True,
        lineage="bronze.snmp_varbinds.received_at",
    ),
    column(
        "received_at",
        UTC_TIME,
        "When the answer reached the collector",
        required=True,
        lineage="bronze.snmp_varbinds.received_at",
    ),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(snmp_varbinds,),
    references=(mib_objects,),
    key=("device_id", "metric_oid", "observed_at"),
    series=("device_id", "metric_oid"),
    time="observed_at",
    value=("metric_value",),
    sender=("device_id",),
    partitions=(Partition("observed_at", "day"),),
    sort=("observed_at", "device_id", "metric_oid", *_POSITION),
    kinds=("iceberg", "silver", "polars", "snmp"),
    freshness=timedelta(minutes=5),
)
def snmp_samples(varbinds: pl.DataFrame, *, mib_objects: pl.DataFrame) -> Outputs:
    """One row a value of an SNMP object instance at the time of its poll.

    Source: `bronze.snmp_varbinds`, named by `reference.mib_objects` (longest prefix). Rows come in the order of the
    polls, late only after an interruption. A varbind without a value is rejected with its reason: no_such_object,
    no_such_instance, no_such_name, end_of_mib_view, null_value, unknown_wire_type or undecodable_value.
    """
    decoded = decode_varbinds(varbinds, mib_objects)
    has_value = pl.col("reason").is_null()
    rows = decoded.filter(has_value).with_columns(
        device_id="target",
        metric_oid="oid",
        data_type="wire_type",
        counter_value=pl.col("counter").cast(pl.Decimal(20, 0)),
        observed_at="received_at",
    )
    rejects = decoded.filter(~has_value).with_columns(
        message=pl.format("target {}: {} {}", "target", "oid", no_value_message())
    )
    return Outputs(
        rows.select(*(c.name for c in _COLUMNS), *_POSITION), rejects.select(*_POSITION, "reason", "message")
    )
