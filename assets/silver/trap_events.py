"""silver.trap_events."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import polars as pl

from assets.bronze.snmp_traps import snmp_traps
from assets.reference.mib_objects import mib_objects
from assets.snmp_objects import decode_varbinds
from assets.table import UTC_TIME, Outputs, column, table
from resources.snmp_notification import Notification, NotificationError, read_notification
from resources.snmp_usm import UsmUser
from resources.stored_table import Partition

_POSITION = ("stream", "sequence", "row")
_DATAGRAM, _SOURCE = "bronze.snmp_traps.datagram", "bronze.snmp_traps.source_address"
_VALUES = (_DATAGRAM, "reference.mib_objects.oid")

_COLUMNS = (
    column(
        "trap_id",
        pl.String,
        "UUID: of a trap by its place in landing, of an INFORM by sender and content, so that one sent again is one",
        required=True,
        lineage=(_DATAGRAM, _SOURCE),
    ),
    column(
        "device_id",
        pl.String,
        "agent_address, else source_address: who the event is about. Not the host:port of polls, since traps come from "
        "any port",
        required=True,
        lineage=(_DATAGRAM, _SOURCE),
    ),
    column("trap_oid", pl.String, "snmpTrapOID.0; of a v1 trap as RFC 3584 maps it", required=True, lineage=_DATAGRAM),
    column(
        "trap_name",
        pl.String,
        "Name of the notification, e.g. linkDown; null if it is not in the MIB table",
        lineage=(_DATAGRAM, "reference.mib_objects.object_name"),
    ),
    column(
        "mib_module", pl.String, "Module of the notification", lineage=(_DATAGRAM, "reference.mib_objects.mib_module")
    ),
    column(
        "agent_address",
        pl.String,
        "agent-addr of a v1 trap, or what a proxy says of one (snmpTrapAddress.0); null if nobody says it",
        lineage=_DATAGRAM,
    ),
    column("source_address", pl.String, "Address that the datagram came from", required=True, lineage=_SOURCE),
    column(
        "source_port",
        pl.Int32,
        "UDP port that the datagram came from",
        required=True,
        lineage="bronze.snmp_traps.source_port",
    ),
    column("snmp_version", pl.String, "1, 2c or 3", required=True, lineage=_DATAGRAM),
    column("is_inform", pl.Boolean, "Whether it is an INFORM, which was answered", required=True, lineage=_DATAGRAM),
    column("user_name", pl.String, "v3: the user whose signature was verified", lineage=_DATAGRAM),
    column("engine_id", pl.String, "v3: the authoritative engine, in hex: of a trap the sender's", lineage=_DATAGRAM),
    column("context_name", pl.String, "v3: context that the event is of", lineage=_DATAGRAM),
    column("request_id", pl.Int64, "request-id; null in v1", lineage=_DATAGRAM),
    column("uptime_seconds", pl.Float64, "sysUpTime.0, or time-stamp of a v1 trap", minimum=0, lineage=_DATAGRAM),
    column("enterprise_oid", pl.String, "enterprise of a v1 trap, or snmpTrapEnterprise.0", lineage=_DATAGRAM),
    column("generic_trap", pl.Int32, "generic-trap of a v1 trap", lineage=_DATAGRAM),
    column("specific_trap", pl.Int64, "specific-trap of a v1 trap", lineage=_DATAGRAM),
    column(
        "variable_bindings",
        pl.String,
        "JSON object: numeric OID to value as text, without sysUpTime.0 and snmpTrapOID.0",
        required=True,
        lineage=_VALUES,
    ),
    column(
        "variables",
        pl.String,
        "JSON list in the order sent: {oid, object, instance, type, value, label}; what is not known is left out",
        required=True,
        lineage=_VALUES,
    ),
    column(
        "observed_at",
        UTC_TIME,
        "When it reached the collector: traps carry no time of day",
        required=True,
        lineage="bronze.snmp_traps.received_at",
    ),
    column(
        "received_at",
        UTC_TIME,
        "When it reached the collector",
        required=True,
        lineage="bronze.snmp_traps.received_at",
    ),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(snmp_traps,),
    references=(mib_objects,),
    takes_users=True,
    key=("trap_id",),
    repeats_within=timedelta(hours=1),
    series=("device_id",),
    time="observed_at",
    value=("trap_oid", "variable_bindings"),
    sender=("device_id",),
    partitions=(Partition("observed_at", "day"),),
    sort=("observed_at", "device_id", *_POSITION),
    kinds=("iceberg", "silver", "polars", "snmp"),
    freshness=timedelta(days=1),
)
def trap_events(
    datagrams: pl.DataFrame, *, mib_objects: pl.DataFrame, users: Mapping[str, Sequence[UsmUser]]
) -> Outputs:
    """One row a trap or INFORM, v1 in the shape of v2 (RFC 3584), its values named and decoded.

    Source: `bronze.snmp_traps`, named by `reference.mib_objects`; v3 with the users of `[snmp_traps]`. Rows come in the
    order of arrival. A datagram that cannot be read is rejected with its reason: not_snmp, not_a_notification,
    unknown_user, wrong_digest, decryption_error or unsupported_level; after its user was added, a replay reads it.
    """
    read, rejects = [], []
    for row in datagrams.iter_rows(named=True):
        try:
            read.append((row, read_notification(row["datagram"], users)))
        except NotificationError as error:
            message = f"datagram of {row['source_address']}: {error}"
            rejects.append([*(row[name] for name in _POSITION), error.reason, message])
    position = {name: datagrams.schema[name] for name in _POSITION}
    schema = {**{c.name: c.dtype for c in _COLUMNS}, **position}
    texts = _texts([notification for _, notification in read], mib_objects)
    rows = [_row(row, notification, *text) for (row, notification), text in zip(read, texts, strict=True)]
    named = mib_objects.select("mib_module", trap_oid="oid", trap_name="object_name")
    frame = pl.DataFrame(rows, {n: t for n, t in schema.items() if n not in ("trap_name", "mib_module")})
    return Outputs(
        frame.join(named, on="trap_oid", how="left", maintain_order="left").select(*schema),
        pl.DataFrame(rejects, {**position, "reason": pl.String, "message": pl.String}, orient="row"),
    )


def _row(row: Mapping[str, Any], said: Notification, bindings: str, variables: str) -> dict[str, Any]:
    if said.is_inform:
        digest = sha256(said.pdu).hexdigest()
        identity = f"{row['source_address']} {row['source_port']} {said.request_id} {digest}"
    else:
        identity = " ".join(str(row[name]) for name in _POSITION)
    return {
        "trap_id": str(uuid5(NAMESPACE_OID, identity)),
        "device_id": said.agent_address or row["source_address"],
        "trap_oid": said.trap_oid,
        "agent_address": said.agent_address,
        "source_address": row["source_address"],
        "source_port": row["source_port"],
        "snmp_version": said.version,
        "is_inform": said.is_inform,
        "user_name": said.user,
        "engine_id": said.engine_id,
        "context_name": said.context,
        "request_id": said.request_id,
        "uptime_seconds": None if said.uptime_ticks is None else said.uptime_ticks / 100,
        "enterprise_oid": said.enterprise_oid,
        "generic_trap": said.generic_trap,
        "specific_trap": said.specific_trap,
        "variable_bindings": bindings,
        "variables": variables,
        "observed_at": row["received_at"],
        "received_at": row["received_at"],
        **{name: row[name] for name in _POSITION},
    }


def _texts(notifications: Sequence[Notification], objects: pl.DataFrame) -> list[tuple[str, str]]:
    """Of each notification the varbinds as JSON: OID to value, and the list with names."""
    flat = [(v.oid, v.wire_type, v.value) for said in notifications for v in said.varbinds]
    frame = pl.DataFrame(flat, {"oid": pl.String, "wire_type": pl.String, "value": pl.Binary}, orient="row")
    names = ("oid", "object_name", "instance", "wire_type", "metric_value", "enum_label")
    decoded = decode_varbinds(frame, objects).select(names).rows()
    texts, at = [], 0
    for said in notifications:
        part, at = decoded[at : at + len(said.varbinds)], at + len(said.varbinds)
        bindings = {oid: value for oid, _, _, _, value, _ in part}
        told = [dict(zip(_VARIABLE, varbind, strict=True)) for varbind in part]
        variables = [{name: text for name, text in one.items() if text is not None} for one in told]
        texts.append((_json(bindings), _json(variables)))
    return texts


_VARIABLE = ("oid", "object", "instance", "type", "value", "label")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
