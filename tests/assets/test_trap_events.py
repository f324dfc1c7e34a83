"""silver.trap_events: names and values of notifications."""

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl

from assets.bronze.snmp_traps import snmp_traps
from assets.reference.mib_objects import mib_objects
from assets.silver.trap_events import trap_events
from assets.table import Outputs
from resources.snmp_ber import element, object_identifier, octets
from resources.snmp_notification import INFORM, V2_TRAP
from tests.resources.test_snmp_notification import LINK_DOWN, USERS, binding, pdu, v1, v2c

AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
SCHEMA = {n: t for n, t in snmp_traps.schema.items() if n not in ("ingested_at", "batch_id")}


def events(*datagrams: bytes) -> Outputs:
    place = {"listener": "0.0.0.0:162", "source_address": "192.0.2.7", "source_port": 5000, "received_at": AT}
    rows = [
        {**place, "datagram": datagram, "stream": "s", "sequence": 1, "row": n} for n, datagram in enumerate(datagrams)
    ]
    assert trap_events.function is not None and mib_objects.function is not None
    objects = mib_objects.function()
    outputs: Outputs = trap_events.function(pl.DataFrame(rows, schema=SCHEMA), mib_objects=objects, users=USERS)
    assert outputs.rows.schema == {n: t for n, t in trap_events.schema.items() if n != "batch_id"}
    return outputs


def variables(row: dict[str, Any]) -> Any:
    return json.loads(row["variables"])


def test_values_are_named_and_labelled() -> None:
    status = binding("1.3.6.1.2.1.2.2.1.8.7", element(0x02, b"\x02"))
    mac = binding("1.3.6.1.2.1.2.2.1.6.7", octets(bytes.fromhex("0011224142ff")))
    unknown = binding("1.3.6.1.4.1.1.2", object_identifier("1.3.6.1.4.1.1"))
    nothing = binding("1.3.6.1.2.1.2.2.1.8.8", element(0x81))
    (row,) = events(v2c(pdu(V2_TRAP, *LINK_DOWN[:2], status, mac, unknown, nothing))).rows.to_dicts()
    assert variables(row) == [
        {
            "oid": "1.3.6.1.2.1.2.2.1.8.7",
            "object": "ifOperStatus",
            "instance": "7",
            "type": "Integer32",
            "value": "2",
            "label": "down",
        },
        {
            "oid": "1.3.6.1.2.1.2.2.1.6.7",
            "object": "ifPhysAddress",
            "instance": "7",
            "type": "OctetString",
            "value": "00:11:22:41:42:ff",
        },
        {"oid": "1.3.6.1.4.1.1.2", "type": "ObjectIdentifier", "value": "1.3.6.1.4.1.1"},
        {"oid": "1.3.6.1.2.1.2.2.1.8.8", "object": "ifOperStatus", "instance": "8", "type": "noSuchInstance"},
    ]
    assert json.loads(row["variable_bindings"]) == {
        "1.3.6.1.2.1.2.2.1.8.7": "2",
        "1.3.6.1.2.1.2.2.1.6.7": "00:11:22:41:42:ff",
        "1.3.6.1.4.1.1.2": "1.3.6.1.4.1.1",
        "1.3.6.1.2.1.2.2.1.8.8": None,
    }
    assert (row["uptime_seconds"], row["request_id"], row["is_inform"]) == (46.6, 7, False)


def test_one_bad_datagram_does_not_touch_its_neighbours() -> None:
    outputs = events(v1(6, 17), b"\x30", v2c(pdu(INFORM, *LINK_DOWN)))
    assert outputs.rows["row"].to_list() == [0, 2]
    assert outputs.rows["trap_oid"].to_list() == ["1.3.6.1.4.1.9.0.17", "1.3.6.1.6.3.1.1.5.3"]
    assert outputs.rejects.select("row", "reason").rows() == [(1, "not_snmp")]


def test_nothing_comes_of_nothing() -> None:
    outputs = events()
    assert outputs.rows.is_empty() and outputs.rejects.is_empty()
