import gzip
import json
from datetime import UTC, datetime
from typing import Any

import msgpack
import polars as pl
import pytest

from assets.bronze.mqtt_messages import mqtt_messages
from assets.json_payload import MAX_BYTES
from assets.reference.topic_formats import topic_formats
from assets.silver.machine_readings import machine_readings
from assets.silver.topic_values import topic_values
from assets.table import Outputs
from pipelines.settings.decode import DecodeConfig

_INPUT = {name: dtype for name, dtype in mqtt_messages.schema.items() if name not in ("ingested_at", "batch_id")}
_ARRIVED = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
_NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_ENTRIES: list[dict[str, Any]] = [
    {"topics": ["meter/+/power", "tank/level"], "format": "number"},
    {"topics": ["meter/#"], "format": "json", "time": "ts"},
    {"topics": ["plain/{room}"], "format": "python-dict"},
    {"topics": ["packed/#"], "format": "msgpack", "time": "at.sent"},
    {"topics": ["logger"], "format": "csv", "columns": ["ts", "temp", "state"], "time": "ts", "delimiter": ";"},
    {"topics": ["headed"], "format": "csv"},
]


def _formats(entries: list[dict[str, Any]]) -> pl.DataFrame:
    assert topic_formats.function is not None
    rows: pl.DataFrame = topic_formats.function([DecodeConfig.model_validate(entry).model_dump() for entry in entries])
    return rows.with_columns(batch_id=pl.lit(1, pl.Int64))


def _messages(*messages: tuple[str, bytes]) -> pl.DataFrame:
    rows = [
        ("hall", topic, 1, False, payload, _ARRIVED, None, None, "mqtt/1", 1, row)
        for row, (topic, payload) in enumerate(messages)
    ]
    return pl.DataFrame(rows, _INPUT, orient="row")


def _parsed(*messages: tuple[str, bytes], entries: list[dict[str, Any]] = _ENTRIES) -> Outputs:
    assert topic_values.function is not None
    outputs: Outputs = topic_values.function(_messages(*messages), topic_formats=_formats(entries))
    return outputs


def _fields(topic: str, payload: bytes) -> list[tuple[str, float | str | None, datetime]]:
    rows, rejects = _parsed((topic, payload))
    assert rejects.is_empty(), rejects["message"].item()
    return [(r["field"], r["text"] if r["value"] is None else r["value"], r["observed_at"]) for r in rows.to_dicts()]


@pytest.mark.parametrize("text", [b"21.5", b" 21.5\n", b"+21.5", b"2.15e1", b"0021.5", b"21.50"])
def test_a_number_is_a_value_at_its_arrival(text: bytes) -> None:
    assert _fields("meter/7/power", text) == _fields("tank/level", gzip.compress(text)) == [("value", 21.5, _ARRIVED)]


def test_fields_of_objects_have_names_with_dots_and_the_senders_time() -> None:
    payload = b'{"ts":"2026-03-01T13:00:00+01:00","a":{"b":1,"c":[2.5,null]},"on":true,"state":"AUTO"}'
    rows, _ = _parsed(("meter/7/state", payload))
    assert rows.select("field", "value", "text").rows() == [
        ("a.b", 1.0, None),
        ("a.c.0", 2.5, None),
        ("on", 1.0, "true"),
        ("state", None, "AUTO"),
    ]
    assert set(rows["observed_at"]) == {_NOON}


def test_every_format_says_the_same() -> None:
    seconds, document = 1_772_366_400, {"p": 1.5, "q": 2}
    as_json = json.dumps({"ts": seconds, **document}).encode()
    expected = [("p", 1.5, _NOON), ("q", 2.0, _NOON)]
    assert _fields("meter/1/x", as_json) == _fields("meter/1/x", gzip.compress(as_json)) == expected
    packed: bytes = msgpack.packb({"at": {"sent": seconds * 1000}, **document})
    assert _fields("packed/1", packed) == _fields("packed/1", gzip.compress(packed)) == expected
    assert _fields("plain/hall", repr(document).encode()) == [(name, value, _ARRIVED) for name, value, _ in expected]


def test_csv_with_declared_columns_and_with_a_header() -> None:
    lines = b'1772366400;21.5;on\r\n1772366401.5;;"a;b"\n'
    later = datetime(2026, 3, 1, 12, 0, 1, 500_000, tzinfo=UTC)
    expected = [("temp", 21.5, _NOON), ("state", "on", _NOON), ("state", "a;b", later)]
    assert _fields("logger", lines) == _fields("logger", gzip.compress(lines)) == expected
    assert _fields("headed", b"t, h\n1,2\n") == [("t", 1.0, _ARRIVED), ("h", 2.0, _ARRIVED)]


_BOMB = gzip.compress(b"1" * 50_000_000)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("tank/level", b"", "empty_payload"),
        ("tank/level", b"high", "wrong_type"),
        ("tank/level", b"NaN", "wrong_type"),
        ("tank/level", b"1e999", "not_finite"),
        ("tank/level", b"\xff", "invalid_utf8"),
        ("tank/level", _BOMB, "too_large"),
        ("meter/1/x", gzip.compress(b'{"ts":1,"a":' + b" " * MAX_BYTES + b"1}"), "too_large"),
        ("meter/1/x", b'{"ts":1,"a":1}' + b" " * MAX_BYTES, "too_large"),
        ("meter/1/x", gzip.compress(b'{"ts":1,"a":1}')[:-5], "invalid_gzip"),
        ("meter/1/x", gzip.compress(b'{"ts":1,"a":1}') + b"x", "invalid_gzip"),
        ("meter/1/x", b"\x1f\x8bnonsense", "invalid_gzip"),
        ("meter/1/x", b'{"a":1}', "missing_field"),
        ("meter/1/x", b'{"ts":1772366400}', "missing_field"),
        ("meter/1/x", b'{"ts":"soon","a":1}', "wrong_type"),
        ("meter/1/x", b"[1]", "not_an_object"),
        ("packed/1", b"\x81\xa1a", "invalid_msgpack"),
        ("packed/1", b"\x81\xa1a\x01\x01", "invalid_msgpack"),
        ("packed/1", b"\xdf\xff\xff\xff\xff", "invalid_msgpack"),
        ("packed/1", b"\x82\xa1a\x01\xa1a\x02", "duplicate_field"),
        ("packed/1", b"\x81\x01\x02", "invalid_msgpack"),
        ("packed/1", b"\x81\xa1a" + b"\x91" * 100 + b"\x01", "too_deep"),
        ("packed/1", b"\x81\xa1a" + b"\x91" * 5000 + b"\x01", "invalid_msgpack"),
        ("packed/1", msgpack.packb({"a": b"\x00"}), "wrong_type"),
        ("packed/1", msgpack.packb({"a": msgpack.ExtType(5, b"x")}), "wrong_type"),
        ("logger", b"1772366400;21.5", "invalid_csv"),
        ("logger", b'1772366400;21.5;"x', "invalid_csv"),
        ("logger", b"soon;21.5;x", "wrong_type"),
        ("headed", b"t\n1\n2\n", "missing_field"),
        ("headed", b"t\n", "missing_field"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else str(value),
)
def test_what_is_not_of_its_format_is_rejected_alone(topic: str, payload: bytes, reason: str) -> None:
    rows, rejects = _parsed(("tank/level", b"1"), (topic, payload), ("tank/level", b"2"))
    assert (rejects["row"].to_list(), rejects["reason"].to_list()) == ([1], [reason])
    assert rows["row"].to_list() == [0, 2] and len(rejects["message"].item()) < 300


def test_only_declared_topics_are_taken_and_the_first_entry_decides() -> None:
    messages = [
        ("meter", b'{"ts":1,"a":1}'),
        ("meter/1/power", b"1"),
        ("tank", b"1"),
        ("logger/x", b"1"),
        ("$SYS/a", b"1"),
    ]
    rows, rejects = _parsed(*messages)
    assert rows["topic"].to_list() == ["meter/1/power", "meter"] and rejects.is_empty()
    assert _parsed(*messages, entries=[]).rows.is_empty()
    declared = {name: dtype for name, dtype in topic_values.schema.items() if name != "batch_id"}
    assert dict(rows.schema) == declared == dict(_parsed(entries=[]).rows.schema)


def test_machine_states_may_be_packed() -> None:
    state = {"Thing": "R0815", "Timestamp": 1_554_096_460_415, "vaTorque_C11": 2.5}
    payloads = [msgpack.packb(state), gzip.compress(json.dumps(state).encode()), gzip.compress(msgpack.packb(state))]
    assert machine_readings.function is not None
    rows, rejects = machine_readings.function(_messages(*(("machine/states", payload) for payload in payloads)))
    assert rejects.is_empty()
    assert rows["value"].to_list() == [2.5] * 3 and rows["observed_at"].n_unique() == 1
