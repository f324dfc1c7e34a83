"""Payloads that cannot be used: each is in quarantine with its reason, byte for byte, and the rows beside it pass."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.micro_batch import is_behind
from pipelines.waiting import request_replay
from tests.pipelines.plant import START, Plant, Reading

SILVER = "silver.sensor_readings"
GOLD = "gold.sensor_windows_1m"
GOOD = Reading(1, 1, 5.0).payload


def changed(**changes: Any) -> bytes:
    """A good payload with other fields; None leaves one out."""
    document = json.loads(GOOD) | changes
    return json.dumps({k: v for k, v in document.items() if v is not None}).encode()


def at(moment: datetime) -> bytes:
    return changed(ts=int(moment.timestamp() * 1000))


BAD = {
    b"": "empty_payload",
    b"{": "invalid_json",
    b'{"ts":\xff}': "invalid_utf8",
    b"[1]": "not_an_object",
    b"x" * 1_000_000: "too_large",
    b"[" * 40_000: "too_deep",
    GOOD.replace(b"5.0", b"NaN"): "not_finite",
    GOOD.replace(b"5.0", b"1e999"): "not_finite",
    changed(measurement="high"): "wrong_type",
    changed(measurement=None): "missing_field",
    changed(metadata={"siteId": 101, "sensorId": 1, "unit": "BAR"}): "missing_field",
    changed(ts=10**30): "integer_out_of_range",
    at(START + timedelta(days=3)): "time_too_late",
    at(datetime(1999, 12, 31, tzinfo=UTC)): "time_too_early",
}


def test_each_is_quarantined_and_its_neighbours_pass(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    landed = [p for i, bad in enumerate(BAD) for p in (bad, Reading(2, i, float(i)).payload)]
    plant.land(landed)
    plant.drain()
    kept = dict(plant.table("quarantine.records").select("raw", "reason").iter_rows())
    assert kept == BAD
    assert sorted(plant.table(SILVER)["measurement"]) == [float(i) for i in range(len(BAD))]
    assert plant.table("bronze.mqtt_messages")["payload"].to_list() == landed


@pytest.fixture
def mended(tmp_path: Path) -> Plant:
    """A plant that quarantined two readings of 1999, one of them broken too, and whose bound was then moved."""
    plant = Plant(tmp_path)
    old = at(datetime(1999, 12, 31, tzinfo=UTC))
    plant.land([GOOD, old, b"{broken"])
    plant.drain()
    assert plant.table(SILVER).height == 1
    plant.options = {"time": {"earliest": datetime(1990, 1, 1, tzinfo=UTC)}}
    plant.context = plant.batches.context = plant.open()
    return plant


def test_replay_after_a_fix_brings_them_in_once(mended: Plant) -> None:
    first = request_replay(mended.context, SILVER, None)
    assert is_behind(mended.context) is not None
    mended.drain()
    assert mended.table(SILVER).height == 2
    assert mended.table(GOLD)["readings"].sum() == 2
    kept = mended.table("quarantine.records").sort("reason")
    assert kept.select("reason", "replayed_by").rows() == [("invalid_json", None), ("time_too_early", first)]
    request_replay(mended.context, SILVER, None)
    mended.drain()
    assert mended.table(SILVER).height == 2
    assert mended.table("quarantine.records").height == 2
    assert is_behind(mended.context) is None


def test_replay_of_one_reason_leaves_the_others(mended: Plant) -> None:
    request_replay(mended.context, SILVER, "invalid_json")
    mended.drain()
    assert mended.table(SILVER).height == 1
    assert mended.table("quarantine.records")["replayed_by"].is_null().all()


def test_replay_goes_along_with_live_data(mended: Plant) -> None:
    request_replay(mended.context, SILVER, "time_too_early")
    mended.land([Reading(3, 3, 3.0).payload])
    mended.drain()
    assert mended.table(SILVER).height == 3
    assert mended.table(GOLD)["readings"].sum() == 3
