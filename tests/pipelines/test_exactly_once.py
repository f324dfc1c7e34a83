"""Any order of arrival, any batching, any repetition gives the tables of a one-shot computation."""

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import MicroBatchConfig, TimeConfig
from pipelines.context import TableResult
from pipelines.micro_batch import MicroBatches
from tests.pipelines.plant import SERIES, START, Plant, Reading, compared, one_shot

GOLD = "gold.sensor_windows_1m"
SILVER = "silver.sensor_readings"
WINDOW_KEY = [*SERIES, "window_start"]
READING_KEY = [*SERIES, "observed_at"]
ARRIVAL = ["received_at", "stream", "sequence", "row"]

sensors = st.integers(0, 3)
seconds = st.integers(0, 600)
arrivals = st.lists(st.lists(st.tuples(sensors, seconds), min_size=0, max_size=25), min_size=1, max_size=5)


def value(sensor: int, second: int) -> float:
    """A key always has the same value, so a repetition is a duplicate and no conflict."""
    return (sensor * 7919 + second * 104729) % 1000 / 7


def as_readings(batch: list[tuple[int, int]]) -> list[Reading]:
    return [Reading(sensor, second, value(sensor, second)) for sensor, second in batch]


@given(arrivals)
@settings(max_examples=10)
def test_any_arrival_equals_one_shot(batches: list[list[tuple[int, int]]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        plant = Plant(folder / "incremental")
        for batch in batches:
            plant.land(r.payload for r in as_readings(batch))
            plant.drain()
        reference = one_shot(folder / "reference", [r for b in batches for r in as_readings(b)])
        for table, key in ((SILVER, READING_KEY), (GOLD, WINDOW_KEY)):
            got = compared(plant.table(table).drop(ARRIVAL, strict=False), key)
            want = compared(reference.table(table).drop(ARRIVAL, strict=False), key)
            assert got.equals(want)
    finally:
        shutil.rmtree(folder)


def test_a_backlog_is_carried_side_by_side_to_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [[Reading(s % 3, 20 * b + s, value(s % 3, 20 * b + s)) for s in range(30)] for b in range(8)]
    passes: list[list[TableResult]] = []
    real = MicroBatches._side_by_side

    def side_by_side(*given: Any) -> list[TableResult]:
        passes.append(real(*given))
        return passes[-1]

    monkeypatch.setattr(MicroBatches, "_side_by_side", side_by_side)
    plant = Plant(tmp_path / "incremental", options={"micro_batch": MicroBatchConfig(max_bytes=1)})
    for batch in batches:
        plant.land(r.payload for r in batch)
    plant.drain()
    assert sum(result.rows > 0 for results in passes for result in results if result.table == SILVER) > 1
    reference = one_shot(tmp_path / "reference", [r for batch in batches for r in batch])
    for table, key in ((SILVER, READING_KEY), (GOLD, WINDOW_KEY)):
        got, want = (compared(p.table(table).drop(ARRIVAL, strict=False), key) for p in (plant, reference))
        assert got.equals(want)


def test_comparison_bites(tmp_path: Path) -> None:
    """The negative control: one reading that is missing, and one that counts twice, are both seen."""
    readings = [Reading(1, s, value(1, s)) for s in range(0, 180, 10)]
    whole = compared(one_shot(tmp_path / "whole", readings).table(GOLD), WINDOW_KEY)
    short = compared(one_shot(tmp_path / "short", readings[:-1]).table(GOLD), WINDOW_KEY)
    doubled = compared(one_shot(tmp_path / "more", [*readings, Reading(1, 5, 3.0)]).table(GOLD), WINDOW_KEY)
    assert not whole.equals(short)
    assert not whole.equals(doubled)


def test_late_reading_corrects_a_final_window(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land(Reading(1, s, 1.0).payload for s in range(0, 300, 10))
    plant.drain()
    plant.now += timedelta(minutes=5)  # the sender is idle by then
    plant.drain()
    before = plant.table(GOLD).sort("window_start")
    assert before["is_final"].all()
    plant.land([Reading(1, 3, 31.0).payload])
    plant.drain()
    after = plant.table(GOLD).sort("window_start")
    assert after["revision"].to_list() == [1, 0, 0, 0, 0]
    assert after["readings"].to_list() == [7, 6, 6, 6, 6]
    assert after["corrected_at"].is_not_null().to_list() == [True, False, False, False, False]
    assert after.filter(pl.col("revision") == 0)["batch_id"].to_list() == before["batch_id"].to_list()[1:]


def test_windows_of_a_silent_sender_become_final(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.now = plant.now.replace(hour=12, minute=2)
    plant.land(Reading(1, s, 1.0).payload for s in range(0, 80, 10))
    plant.drain()
    assert not plant.table(GOLD)["is_final"].any()
    plant.now = plant.now.replace(minute=10)
    plant.drain()
    final = plant.table(GOLD)
    assert final["is_final"].all() and final["revision"].sum() == 0


def test_duplicates_are_counted_and_conflicts_quarantined(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([Reading(1, 1, 5.0).payload, Reading(1, 1, 5.0).payload, Reading(1, 1, 6.0).payload])
    plant.land([Reading(1, 1, 5.0).payload, Reading(1, 1, 7.0).payload])
    plant.drain()
    assert plant.table(SILVER)["measurement"].to_list() == [5.0]
    kept = plant.table("quarantine.records").sort("sequence", "row")
    assert kept["reason"].to_list() == ["key_conflict", "key_conflict"]
    assert kept["raw"].to_list() == [Reading(1, 1, 6.0).payload, Reading(1, 1, 7.0).payload]


def test_sender_from_the_future_moves_no_watermark(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.now = plant.now.replace(hour=12, minute=2)
    plant.land([Reading(1, 60, 5.0).payload, Reading(1, 86_400, 5.0).payload])
    plant.drain()
    assert plant.table("quarantine.records")["reason"].to_list() == ["time_too_late"]
    assert plant.table("ops.watermarks")["observed_at"].to_list() == plant.table(SILVER)["observed_at"].to_list()


def ten_thousand_and_one_ahead(plant: Plant) -> pl.DataFrame:
    """Two minutes of ten sensors in ten batches, and amid them a row that is a day ahead; the windows, final."""
    honest = [Reading(n % 10, n // 10 * 0.12, float(n)) for n in range(10_000)]
    for start in range(0, 10_000, 1000):
        ahead = [Reading(1, 86_400, 1.0).payload] if start == 3000 else []
        part = [reading.payload for reading in honest[start : start + 1000]]
        plant.now = START + timedelta(seconds=honest[start + 999].second)
        plant.land([*part[:500], *ahead, *part[500:]])
        plant.drain()
    plant.now += timedelta(minutes=5)
    plant.drain()
    return plant.table(GOLD)


def test_one_row_a_day_ahead_makes_none_of_ten_thousand_late(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    windows = ten_thousand_and_one_ahead(plant)
    assert plant.table("quarantine.records")["reason"].to_list() == ["time_too_late"]
    assert plant.table(SILVER).height == windows["readings"].sum() == 10_000
    assert windows["is_final"].all() and windows["revision"].sum() == 0


def test_rows_are_late_where_the_bound_lets_it_through(tmp_path: Path) -> None:
    """The check above can fail: the row ahead moves its sender's watermark, and honest rows correct final windows."""
    windows = ten_thousand_and_one_ahead(Plant(tmp_path, {"time": TimeConfig(skew=timedelta(days=2))}))
    assert windows["revision"].sum() > 0


def test_what_a_dead_collector_left_open_is_taken_behind_what_was_committed(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([Reading(1, 1, 1.0).payload])
    plant.land([Reading(1, 2, 1.0).payload])
    plant.drain()  # both segments are removed
    plant.stream.write(
        [("north", "factory_iot/north/101", 1, False, Reading(1, 3, 1.0).payload, plant.now, None, None)]
    )
    os.close(plant.stream._lock)
    (plant.stream.directory / "removed").write_text("garbage")  # left by an earlier version, and damaged
    plant.drain()
    assert plant.table("bronze.mqtt_messages").sort("sequence")["sequence"].to_list() == [1, 2, 3]
    assert plant.table(SILVER).height == 3
    assert plant.table("quarantine.records").is_empty()
    plant.drain()
    assert not plant.stream.directory.exists()


@pytest.mark.parametrize("parts", [1, 3])
def test_marker_is_in_the_table(tmp_path: Path, parts: int) -> None:
    """A new process goes on where the table stands; nothing is remembered elsewhere."""
    plant = Plant(tmp_path)
    for part in range(parts):
        plant.land([Reading(part, 1, 1.0).payload])
        plant.context = plant.open()
        plant.batches.context = plant.context
        plant.drain()
    assert plant.table(SILVER).height == parts
    assert plant.table(GOLD)["readings"].sum() == parts
