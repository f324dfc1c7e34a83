"""silver.snmp_samples: names, instances and values of varbinds."""

import bz2
import os
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.ber import encoder
from pysnmp.proto import rfc1902

from assets.bronze.snmp_varbinds import snmp_varbinds
from assets.reference.mib_objects import mib_objects
from assets.silver.snmp_samples import snmp_samples
from assets.snmp_index import decode_instance
from assets.snmp_text import date_text, octets_text
from assets.table import Outputs

AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
SCHEMA = {n: t for n, t in snmp_varbinds.schema.items() if n not in ("ingested_at", "batch_id")}
assert mib_objects.function is not None
OBJECTS = mib_objects.function()
Triple = tuple[str, str, bytes]


def samples(*varbinds: Triple) -> Outputs:
    rows = [
        {
            "target": "sw1:161",
            "poll_id": "p",
            "request_id": 7,
            "oid": oid,
            "wire_type": wire_type,
            "value": value,
            "received_at": AT,
            "stream": "s",
            "sequence": 1,
            "row": n,
        }
        for n, (oid, wire_type, value) in enumerate(varbinds)
    ]
    assert snmp_samples.function is not None
    outputs: Outputs = snmp_samples.function(pl.DataFrame(rows, schema=SCHEMA), mib_objects=OBJECTS)
    assert outputs.rows.schema == {n: t for n, t in snmp_samples.schema.items() if n != "batch_id"}
    return outputs


def content(value: Any) -> bytes:
    """Content octets as pyasn1 encodes them."""
    encoded: bytes = encoder.encode(value)
    return encoded[2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0) :]


def one(oid: str, wire_type: str, value: bytes) -> dict[str, Any]:
    rows = samples((oid, wire_type, value)).rows.to_dicts()
    assert len(rows) == 1
    return rows[0]


def test_a_row_of_an_interface_counter() -> None:
    assert one("1.3.6.1.2.1.31.1.1.1.6.3", "Counter64", b"\x00\xff\xff\xff\xff\xff\xff\xff\xff") == {
        "device_id": "sw1:161",
        "metric_oid": "1.3.6.1.2.1.31.1.1.1.6.3",
        "object_name": "ifHCInOctets",
        "instance_identifier": "3",
        "instance": "3",
        "mib_module": "IF-MIB",
        "data_type": "Counter64",
        "metric_value": "18446744073709551615",
        "numeric_value": float(2**64),
        "counter_value": 2**64 - 1,
        "enum_label": None,
        "request_id": 7,
        "poll_id": "p",
        "observed_at": AT,
        "received_at": AT,
        "stream": "s",
        "sequence": 1,
        "row": 0,
    }


@pytest.mark.parametrize(
    ("oid", "name", "identifier", "instance"),
    [
        ("1.3.6.1.2.1.1.3.0", "sysUpTime", "0", "0"),
        ("1.3.6.1.2.1.2.2.1.10.1001", "ifInOctets", "1001", "1001"),
        ("1.3.6.1.2.1.2.2.1.1.7", "ifIndex", "7", "7"),
        ("1.3.6.1.2.1.31.1.2.1.3.0.8", "ifStackStatus", "0.8", "0,8"),
        (
            "1.3.6.1.2.1.31.1.4.1.2.5.6.0.17.34.65.66.255",
            "ifRcvAddressStatus",
            "5.6.0.17.34.65.66.255",
            "5,00:11:22:41:42:ff",
        ),
        ("1.3.6.1.2.1.2.2.1.10.1.2", "ifInOctets", "1.2", None),
        ("1.3.6.1.2.1.2.2.1.99.1", None, None, None),
        ("1.3.6.1.4.1.318.1.1.1", None, None, None),
        ("1.3.6.1.2.1.1.30.0", None, None, None),
        ("1.3.6.1.2.1.2.2.1.10", None, None, None),
    ],
)
def test_object_and_instance(oid: str, name: str | None, identifier: str | None, instance: str | None) -> None:
    row = one(oid, "Counter32", b"\x01")
    assert (row["object_name"], row["instance_identifier"], row["instance"]) == (name, identifier, instance)


@pytest.mark.parametrize(
    ("wire_type", "octets", "text", "number"),
    [
        ("Integer32", "00", "0", 0.0),
        ("Integer32", "ff", "-1", -1.0),
        ("Integer32", "80000000", "-2147483648", -2147483648.0),
        ("Integer32", "ff7f", "-129", -129.0),
        ("Integer32", "0000007f", "127", 127.0),
        ("Counter32", "00ffffffff", "4294967295", 4294967295.0),
        ("Counter32", "ffffffff", "4294967295", 4294967295.0),
        ("Gauge32", "3b9aca00", "1000000000", 1e9),
        ("TimeTicks", "00", "0", 0.0),
        ("IpAddress", "0a0000ff", "10.0.0.255", None),
        ("ObjectIdentifier", "2b06010401bf08", "1.3.6.1.4.1.8072", None),
        ("OctetString", "", "", None),
        ("OctetString", "476930", "Gi0", None),
        ("OctetString", "c3a9740d0a", "ét\r\n", None),
        ("OctetString", "476900", "0x476900", None),
        ("OctetString", "e974", "0xe974", None),
        ("Opaque", "9f780441bc0000", "23.5", 23.5),
        ("OpaqueFloat", "9f780441bc0000", "23.5", 23.5),
        ("OpaqueDouble", "9f7908" + struct.pack(">d", 0.1).hex(), "0.1", 0.1),
        ("Opaque", "9f7904" + "41bc0000", "0x9f790441bc0000", None),
        ("Opaque", "9f7908" + struct.pack(">d", 0.1).hex(), "0.1", 0.1),
        ("Opaque", "9f78047fc00000", "nan", None),
        ("Opaque", "0906", "0x0906", None),
    ],
)
def test_values(wire_type: str, octets: str, text: str, number: float | None) -> None:
    row = one("1.3.6.1.4.1.1.1", wire_type, bytes.fromhex(octets))
    assert (row["data_type"], row["metric_value"], row["numeric_value"]) == (wire_type, text, number)


@pytest.mark.parametrize(
    ("oid", "octets", "text"),
    [
        ("1.3.6.1.2.1.2.2.1.2.1", "4c6f6f706261636b00", "Loopback"),
        ("1.3.6.1.2.1.2.2.1.6.1", "414243444546", "41:42:43:44:45:46"),
        ("1.3.6.1.2.1.2.2.1.6.1", "", ""),
        ("1.3.6.1.2.1.25.1.2.0", "07e80416132d0000", "2024-04-22T19:45:00.000"),
    ],
    ids=["text with a NUL behind", "address that could be text", "no address", "date"],
)
def test_the_syntax_of_a_known_object_decides_text_or_hex(oid: str, octets: str, text: str) -> None:
    assert one(oid, "OctetString", bytes.fromhex(octets))["metric_value"] == text


def test_enumerations_are_labelled_and_unknown_codes_are_not() -> None:
    rows = samples(
        ("1.3.6.1.2.1.2.2.1.8.1", "Integer32", b"\x07"),
        ("1.3.6.1.2.1.2.2.1.8.2", "Integer32", b"\x63"),
        ("1.3.6.1.2.1.2.2.1.4.1", "Integer32", b"\x01"),
    ).rows
    assert rows["enum_label"].to_list() == ["lowerLayerDown", None, None]


def test_only_counters_have_a_counter_value() -> None:
    rows = samples(("1.3.1", "Counter32", b"\x05"), ("1.3.2", "Gauge32", b"\x05"), ("1.3.3", "Integer32", b"\x05")).rows
    assert [None if v is None else int(v) for v in rows["counter_value"]] == [5, None, None]


@pytest.mark.parametrize(
    ("wire_type", "octets", "reason"),
    [
        ("noSuchObject", "", "no_such_object"),
        ("noSuchInstance", "", "no_such_instance"),
        ("noSuchName", "", "no_such_name"),
        ("endOfMibView", "", "end_of_mib_view"),
        ("Null", "", "null_value"),
        ("0x47", "01", "unknown_wire_type"),
        ("Integer32", "", "undecodable_value"),
        ("Integer32", "0100000000", "undecodable_value"),
        ("Counter32", "", "undecodable_value"),
        ("Counter32", "0100000000", "undecodable_value"),
        ("Counter64", "010000000000000000", "undecodable_value"),
        ("IpAddress", "0a0000", "undecodable_value"),
        ("ObjectIdentifier", "", "undecodable_value"),
        ("ObjectIdentifier", "2b86", "undecodable_value"),
        ("Opaque", "", "undecodable_value"),
    ],
)
def test_rejects(wire_type: str, octets: str, reason: str) -> None:
    good = ("1.3.6.1.2.1.1.3.0", "TimeTicks", b"\x01")
    outputs = samples(good, ("1.3.6.1.9.0", wire_type, bytes.fromhex(octets)), good)
    assert outputs.rows["row"].to_list() == [0, 2]
    (reject,) = outputs.rejects.to_dicts()
    message = reject.pop("message")
    assert reject == {"stream": "s", "sequence": 1, "row": 1, "reason": reason}
    assert message.startswith("target sw1:161: 1.3.6.1.9.0 ")
    assert wire_type in message


def test_nothing_comes_of_nothing() -> None:
    outputs = samples()
    assert outputs.rows.is_empty()
    assert outputs.rejects.is_empty()


def test_order_and_repetitions_are_kept() -> None:
    oids = ["1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.2.2.1.2.1", "1.3.9", "1.3.6.1.2.1.1.5.0"] * 50
    rows = samples(*((oid, "OctetString", b"x") for oid in oids)).rows
    assert rows["metric_oid"].to_list() == oids
    assert rows["row"].to_list() == list(range(200))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20))
def test_integers_decode_as_they_were_encoded(numbers: list[int]) -> None:
    rows = samples(*(("1.3.9", "Integer32", content(rfc1902.Integer32(n))) for n in numbers)).rows
    assert rows["metric_value"].to_list() == [str(n) for n in numbers]
    assert rows["numeric_value"].to_list() == numbers


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_counters_decode_exactly(numbers: list[int]) -> None:
    rows = samples(*(("1.3.9", "Counter64", content(rfc1902.Counter64(n))) for n in numbers)).rows
    assert [int(v) for v in rows["counter_value"]] == numbers
    assert rows["metric_value"].to_list() == [str(n) for n in numbers]
    assert rows["numeric_value"].to_list() == [float(n) for n in numbers]


WIRE_TYPES = st.sampled_from(
    [
        "Integer32",
        "Counter32",
        "Counter64",
        "TimeTicks",
        "OctetString",
        "IpAddress",
        "ObjectIdentifier",
        "Opaque",
        "0x9f",
    ]
)


@given(st.lists(st.tuples(WIRE_TYPES, st.binary(max_size=20)), max_size=20))
def test_any_octets_become_a_row_or_a_reject(values: list[tuple[str, bytes]]) -> None:
    outputs = samples(*(("1.3.6.1.2.1.2.2.1.8.1", *value) for value in values))
    assert sorted([*outputs.rows["row"], *outputs.rejects["row"]]) == list(range(len(values)))
    assert not outputs.rows["metric_value"].has_nulls()
    assert not outputs.rejects["message"].has_nulls()


@given(st.text(), st.sampled_from([None, "255a"]))
def test_text_is_shown_whole_or_as_hex(text: str, syntax: str | None) -> None:
    shown = octets_text(text.encode(), syntax)
    assert shown in (text, text.rstrip("\0"), f"0x{text.encode().hex()}")
    assert all(c in "\t\r\n" or ord(c) >= 32 for c in shown)


@pytest.mark.parametrize(
    ("sub_identifiers", "kinds", "text"),
    [
        ([3, 97, 98, 99, 7], ["string", "integer"], "abc,7"),
        ([10, 0, 0, 1], ["ipaddress"], "10.0.0.1"),
        ([10, 0, 0], ["ipaddress"], None),
        ([10, 0, 0, 256], ["ipaddress"], None),
        ([97, 98], ["implied_string"], "ab"),
        ([2, 1, 3, 9], ["oid", "integer"], "1.3,9"),
        ([1, 3, 6], ["implied_oid"], "1.3.6"),
        ([65, 66, 1], ["fixed_string/2", "integer"], "AB,1"),
        ([4, 1], ["string"], None),
        ([], ["integer"], None),
        ([300], ["no such kind"], None),
    ],
)
def test_index_values(sub_identifiers: list[int], kinds: list[str], text: str | None) -> None:
    assert decode_instance(sub_identifiers, kinds) == text


# ASN.1 tag number of a recording to wire type and encoder.
_RECORDED: dict[str, tuple[str, Any]] = {
    "2": ("Integer32", rfc1902.Integer32),
    "4": ("OctetString", rfc1902.OctetString),
    "6": ("ObjectIdentifier", rfc1902.ObjectIdentifier),
    "64": ("IpAddress", rfc1902.IpAddress),
    "65": ("Counter32", rfc1902.Counter32),
    "66": ("Gauge32", rfc1902.Gauge32),
    "67": ("TimeTicks", rfc1902.TimeTicks),
    "68": ("Opaque", rfc1902.Opaque),
    "70": ("Counter64", rfc1902.Counter64),
}


def _recording(path: Path) -> list[tuple[Triple, Any]]:
    """Every recorded varbind with what was recorded: a number, octets, or dotted text."""
    raw = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    found: list[tuple[Triple, Any]] = []
    for line in raw.decode("latin-1").split("\n"):
        oid, _, rest = line.strip("\r").partition("|")
        tag, _, text = rest.partition("|")
        if not rest or tag.rstrip("x") not in _RECORDED:
            continue
        wire_type, make = _RECORDED[tag.rstrip("x")]
        value = bytes.fromhex(text) if tag.endswith("x") else text.encode("latin-1")
        if wire_type in ("OctetString", "Opaque", "IpAddress"):
            octets = bytes(map(int, text.split("."))) if tag == "64" else value
            found.append(((oid, wire_type, octets), octets))
        else:
            found.append(((oid, wire_type, content(make(text))), text))
    return found


def _recordings() -> list[Path]:
    folder = os.environ.get("SECCHI_TEST_DATA")
    return sorted(Path(folder, "snmp").glob("*.snmprec*")) if folder else []


@pytest.mark.parametrize("path", _recordings() or [None], ids=lambda p: p.name.split(".")[0] if p else "none")
def test_recorded_devices(path: Path | None) -> None:
    if path is None:
        pytest.skip("SECCHI_TEST_DATA names no folder with snmp/*.snmprec")
    recorded = _recording(path)[:4000]
    outputs = samples(*(triple for triple, _ in recorded))
    assert outputs.rejects.is_empty()
    shown = zip(outputs.rows.select("metric_value", "data_type").iter_rows(), recorded, strict=True)
    for (text, wire_type), (_, expected) in shown:
        if wire_type == "IpAddress":
            assert text == ".".join(map(str, expected))
        elif isinstance(expected, bytes):
            spellings = {f"0x{expected.hex()}", expected.hex(":"), date_text(expected)}
            assert text in spellings or text.encode() == expected.rstrip(b"\0")
        else:
            assert text == expected
    assert "sysUpTime" in outputs.rows["object_name"]
    named = outputs.rows.filter(pl.col("object_name").is_not_null())
    assert not named["instance"].has_nulls()
