"""Whatever a sender puts into a message: it is kept byte for byte with its reason, and touches nothing beside it."""

import importlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from assets import json_payload
from pipelines.collect.mqtt import RECORD, SOURCE
from pipelines.config import TimeConfig
from pipelines.waiting import counts, request_replay, waiting_records
from resources.landing import LandingLimits, LandingStream
from tests.pipelines.plant import START, Plant, Reading

SILVER, GOLD, QUARANTINE = "silver.sensor_readings", "gold.sensor_windows_1m", "quarantine.records"
PARSER = importlib.import_module("assets.silver.sensor_readings")
MS = int(START.timestamp() * 1000)
METADATA = {"siteId": 101, "deviceId": 1000, "sensorId": 10000, "unit": "BAR"}


def message(**changes: Any) -> bytes:
    """A reading of sensor 0 with other members, or without those that are ``...``."""
    document = {"ts": MS, "metadata": METADATA, "measurement": 1.5} | changes
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def metadata(**changes: Any) -> bytes:
    return message(metadata={n: v for n, v in (METADATA | changes).items() if v is not ...})


def at(moment: datetime) -> bytes:
    return message(ts=int(moment.timestamp() * 1000))


def measured(text: str) -> bytes:
    """A reading whose measurement is written as it is, JSON or not."""
    return message(measurement="@").replace(b'"@"', text.encode())


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty_payload"),
    "spaces": (b" \r\n\t ", "empty_payload"),
    "broken off": (message()[:-5], "invalid_json"),
    "two documents": (message() * 2, "invalid_json"),
    "trailing comma": (message().replace(b"1.5}", b"1.5,}"), "invalid_json"),
    "backquotes": (message().replace(b'"', b"`"), "invalid_json"),
    "leading byte order mark": (b"\xef\xbb\xbf" + message(), "invalid_json"),
    "zero bytes": (b"\x00" * 64, "invalid_json"),
    "a number": (b"12", "not_an_object"),
    "a list of readings": (b"[" + message() + b"]", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "no UTF-8": (message().replace(b"BAR", b"B\xffR"), "invalid_utf8"),
    "UTF-16": (message().decode().encode("utf-16"), "invalid_utf8"),
    "half of a character": (message().replace(b"BAR", b"\xe2\x82"), "invalid_utf8"),
    "half of a surrogate pair": (metadata(unit="\ud800"), "invalid_utf8"),
    "one megabyte of text": (metadata(unit="x" * 2**20), "too_large"),
    "one megabyte of nothing": (b" " * 2**20 + message(), "too_large"),
    "one megabyte of brackets": (b"[" * 2**20, "too_large"),
    "nested deeply": (message(measurement=1).replace(b"1}", b"[" * 30_000 + b"]" * 30_000 + b"}"), "too_deep"),
    "brackets without end": (b'{"a":' * 10_000, "too_deep"),
    "a field twice": (message()[:-1] + b',"ts":1}', "duplicate_field"),
    "no time": (message(ts=...), "missing_field"),
    "no metadata": (message(metadata=...), "missing_field"),
    "no site": (metadata(siteId=...), "missing_field"),
    "no device": (metadata(deviceId=None), "missing_field"),
    "no sensor": (metadata(sensorId=...), "missing_field"),
    "no unit": (metadata(unit=...), "missing_field"),
    "no measurement": (message(measurement=None), "missing_field"),
    "text for a number": (message(measurement="12"), "wrong_type"),
    "a list for a number": (message(measurement=[1]), "wrong_type"),
    "true for a number": (message(measurement=True), "wrong_type"),
    "text for an id": (metadata(siteId="101"), "wrong_type"),
    "a fraction for an id": (metadata(sensorId=1.5), "wrong_type"),
    "a list for metadata": (message(metadata=[METADATA]), "wrong_type"),
    "a number for a unit": (metadata(unit=7), "wrong_type"),
    "text for a time": (message(ts="yesterday"), "wrong_type"),
    "an id that is too large": (metadata(siteId=2**63), "integer_out_of_range"),
    "a number of 5,000 digits": (measured("1" * 5_000), "integer_out_of_range"),
    "not a number": (measured("NaN"), "not_finite"),
    "infinity": (measured("Infinity"), "not_finite"),
    "minus infinity": (measured("-Infinity"), "not_finite"),
    "infinity by exponent": (measured("1e400"), "not_finite"),
    "infinity in a field that is not known": (message(extra=float("inf")), "not_finite"),
    "latitude of no place": (metadata(location={"latitude": 91, "longitude": 0}), "above_maximum"),
    "longitude of no place": (metadata(location={"latitude": 0, "longitude": -180.5}), "below_minimum"),
    "tomorrow": (at(START + timedelta(hours=6) + timedelta(days=1)), "time_too_late"),
    "just too late": (at(START + timedelta(hours=6, minutes=5, milliseconds=1)), "time_too_late"),
    "the year 9999": (at(datetime(9999, 12, 31, tzinfo=UTC)), "time_too_late"),
    "the last time there is": (message(ts=(2**63 - 1) // 1000), "time_too_late"),
    "the last century": (at(datetime(1999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)), "time_too_early"),
    "the epoch": (message(ts=0), "time_too_early"),
    "before the epoch": (message(ts=-1), "time_too_early"),
    "the first time there is": (message(ts=-((2**63 - 1) // 1000)), "time_too_early"),
    "a time that no clock has": (message(ts=2**63 - 1), "integer_out_of_range"),
}
GOOD = [Reading(sensor, second, float(second)).payload for sensor in range(1, 4) for second in range(0, 200, 10)]


def interleaved() -> list[bytes]:
    """Every bad message with a good one before and behind it."""
    bad = [payload for payload, _ in BAD.values()]
    rest = iter(GOOD)
    return [payload for one in bad for payload in (one, next(rest))] + list(rest)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """All of it, in one segment."""
    plant = Plant(tmp_path_factory.mktemp("bad"))
    plant.land(interleaved())
    plant.drain()
    return plant


@pytest.fixture(scope="module")
def kept(plant: Plant) -> dict[bytes, dict[str, Any]]:
    return {row["raw"]: row for row in plant.table(QUARANTINE).to_dicts()}


def test_there_are_enough_good_messages() -> None:
    assert len(GOOD) > len(BAD) > 50


@pytest.mark.parametrize("case", BAD)
def test_bad_message_is_kept_with_its_reason(kept: dict[bytes, dict[str, Any]], case: str) -> None:
    payload, reason = BAD[case]
    row = kept[payload]
    assert (row["reason"], row["stage"], row["source"]) == (reason, SILVER, "bronze.mqtt_messages")
    assert row["message"] and "\n" not in row["message"] and len(row["message"]) < 400
    assert json.loads(row["attributes"])["topic"] == "factory_iot/north/101"
    assert row["replayed_by"] is None


def test_good_messages_beside_them_pass(plant: Plant) -> None:
    rows = plant.table(SILVER)
    assert rows.height == len(GOOD)
    assert rows.filter(pl.col("sensor_id") == 10000).is_empty(), "nothing of a bad message came through"
    assert plant.table(GOLD)["readings"].sum() == len(GOOD)


def test_every_message_is_somewhere_once(plant: Plant) -> None:
    bronze, position = plant.table("bronze.mqtt_messages"), ["stream", "sequence", "row"]
    quarantined = plant.table(QUARANTINE)
    assert quarantined.height == len(BAD) and quarantined["record_id"].is_unique().all()
    arrived = pl.concat([plant.table(SILVER).select(position), quarantined.select(position)])
    assert arrived.sort(position).equals(bronze.select(position).sort(position))
    assert sorted(bronze["payload"]) == sorted(interleaved())
    told = counts(waiting_records(plant.context))
    assert dict(told.select("reason", "records").iter_rows()) == {
        reason: sum(r == reason for _, r in BAD.values()) for _, reason in BAD.values()
    }


def test_bad_messages_move_no_watermark(plant: Plant) -> None:
    marks = plant.table("ops.watermarks")
    assert marks["observed_at"].max() == START + timedelta(seconds=190)
    assert marks.height == 2, "the devices of sensors 1 and of 2 and 3; a device of bad messages alone has none"


@pytest.mark.parametrize("case", ["the last time there is", "one megabyte of text", "nothing", "no UTF-8"])
def test_message_that_comes_alone(tmp_path: Path, case: str) -> None:
    plant = Plant(tmp_path)
    plant.land([BAD[case][0]])
    plant.drain()
    assert plant.table(SILVER).is_empty()
    assert plant.table(QUARANTINE)["raw"].to_list() == [BAD[case][0]]
    assert [r for r in plant.batches.run_once() if r.did_work] == []


def test_time_at_its_bounds_is_taken(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([at(plant.now + timedelta(minutes=5)), at(datetime(2000, 1, 1, tzinfo=UTC))])
    plant.drain()
    assert plant.table(SILVER).height == 2
    assert plant.table(QUARANTINE).is_empty()


# --- replay ------------------------------------------------------------------------------------------------------


EARLY = at(datetime(1999, 6, 1, tzinfo=UTC))


def waiting(plant: Plant) -> list[bytes]:
    rows = plant.table(QUARANTINE)
    return sorted(rows.filter(pl.col("replayed_by").is_null())["raw"])


def mended(plant: Plant, **options: Any) -> None:
    """The plant as after a restart with another configuration."""
    plant.options = options
    plant.context = plant.batches.context = plant.open()


def replayed(plant: Plant, reason: str | None = None) -> str:
    """Asks for the records, and carries; a moment after what was quarantined."""
    plant.now += timedelta(seconds=1)
    request = request_replay(plant.context, SILVER, reason)
    plant.drain()
    return request


def test_replay_after_a_change_of_the_bounds(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([b"{", EARLY, GOOD[0]])
    plant.drain()
    before = plant.table(QUARANTINE)
    assert sorted(before["reason"]) == ["invalid_json", "time_too_early"]
    mended(plant, time=TimeConfig(earliest=datetime(1999, 1, 1, tzinfo=UTC)))
    assert plant.table(SILVER).height == 1, "nothing comes in unasked"
    request = replayed(plant)
    assert plant.table(SILVER)["observed_at"].min() == datetime(1999, 6, 1, tzinfo=UTC)
    assert plant.table(SILVER).height == plant.table(GOLD)["readings"].sum() == 2
    after = plant.table(QUARANTINE)
    assert dict(after.select("reason", "replayed_by").iter_rows()) == {"time_too_early": request, "invalid_json": None}
    assert after["record_id"].sort().equals(before["record_id"].sort())


def test_replay_after_a_mended_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent in backquotes is read by the next version; the bytes stay as they came."""
    quoted = message().replace(b'"', b"`")
    plant = Plant(tmp_path)
    plant.land([b"{", quoted, GOOD[0]])
    plant.drain()
    assert waiting(plant) == sorted([b"{", quoted])
    parse = json_payload.parse_object
    monkeypatch.setattr(PARSER, "parse_object", lambda raw: parse(raw.replace(b"`", b'"')))
    request = replayed(plant, "invalid_json")
    assert waiting(plant) == [b"{"]
    rows = plant.table(QUARANTINE)
    assert rows.filter(pl.col("replayed_by") == request)["raw"].to_list() == [quoted]
    taken = plant.table(SILVER).filter(pl.col("sensor_id") == 10000)
    assert taken["measurement"].to_list() == [1.5]
    origin = plant.table("bronze.mqtt_messages").filter(pl.col("payload") == quoted)
    for name in ("stream", "sequence", "row", "received_at"):
        assert taken[name].to_list() == origin[name].to_list(), "traced to the bytes it came from"


def test_second_replay_adds_nothing(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([EARLY, GOOD[0]])
    plant.drain()
    mended(plant, time=TimeConfig(earliest=datetime(1999, 1, 1, tzinfo=UTC)))
    first = replayed(plant)
    silver, gold, kept = (plant.table(name) for name in (SILVER, GOLD, QUARANTINE))
    replayed(plant)
    replayed(plant, "time_too_early")
    assert plant.table(SILVER).equals(silver)
    assert plant.table(GOLD).equals(gold)
    assert plant.table(QUARANTINE).equals(kept) and kept["replayed_by"].to_list() == [first]


def test_replay_that_fails_again_keeps_the_record_once(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([b"{", EARLY, GOOD[0]])
    plant.drain()
    before = plant.table(QUARANTINE).sort("record_id")
    for _ in range(2):
        replayed(plant)
        after = plant.table(QUARANTINE).sort("record_id")
        same = ["record_id", "stage", "reason", "raw", "attributes", "stream", "sequence", "row", "replayed_by"]
        assert after.select(same).equals(before.select(same))
    assert (after["quarantined_at"] > before["quarantined_at"]).all()
    assert plant.table(SILVER).height == 1
    mended(plant, time=TimeConfig(earliest=datetime(1999, 1, 1, tzinfo=UTC)))
    replayed(plant)
    assert waiting(plant) == [b"{"]
    assert plant.table(SILVER).height == 2


def test_replay_of_one_reason_leaves_the_others(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([EARLY, message(ts=0), b"{"])
    plant.drain()
    mended(plant, time=TimeConfig(earliest=datetime(1960, 1, 1, tzinfo=UTC)))
    replayed(plant, "invalid_json")
    assert plant.table(SILVER).is_empty() and len(waiting(plant)) == 3
    replayed(plant, "time_too_early")
    assert plant.table(SILVER).height == 2 and waiting(plant) == [b"{"]


def test_replay_comes_with_live_data(tmp_path: Path) -> None:
    """The record and a live message of the same reading: one stays, one is a duplicate."""
    plant = Plant(tmp_path)
    plant.land([EARLY])
    plant.drain()
    mended(plant, time=TimeConfig(earliest=datetime(1999, 1, 1, tzinfo=UTC)))
    plant.land([EARLY, GOOD[0]])
    replayed(plant)
    assert plant.table(SILVER).height == 2
    assert waiting(plant) == []
    assert plant.table(GOLD)["readings"].to_list() == [1, 1]


def test_records_that_came_after_the_request_wait(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([b"{"])
    plant.drain()
    request = request_replay(plant.context, SILVER, None)
    plant.now += timedelta(seconds=1)
    plant.land([b"["])
    plant.drain()
    assert plant.table(QUARANTINE).filter(pl.col("replayed_by") == request).is_empty()
    assert waiting(plant) == [b"[", b"{"]


def test_a_segment_of_an_earlier_version_lacks_a_column(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    earlier = pa.schema([field for field in RECORD if field.name not in ("topic_parts", "properties")])
    stream = LandingStream(plant.context.landing, SOURCE, "mqtt", earlier, LandingLimits())
    stream.write([("north", "factory_iot/north/101", 1, False, b"{}", plant.now)])
    stream.close()
    plant.land([b"{}"])
    plant.drain()
    assert plant.table("bronze.mqtt_messages")["topic_parts"].to_list() == [None, None]
