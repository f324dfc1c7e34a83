"""Thresholds in any order of arrival, batching and crash equal a plain reference; they fire when input has stopped."""

import json
import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings

from assets.catalog import load_tables
from assets.declarations import Declarations
from pipelines.gold_plan import due_windows
from resources.errors import ConfigurationError
from resources.stored_table import StoredTable
from tests.pipelines.event_time import START, Row, Silver, aligned, carry_through
from tests.pipelines.test_windows import arrivals, crashes, definition, distinct

BY = ["site_id", "device_id", "sensor_id"]
READINGS, WINDOWS, EVENTS = "silver.sensor_readings", "gold.measured", "gold.threshold_events"
NAME = "gold.hot"
THRESHOLDS: dict[str, dict[str, Any]] = {
    "level": {"from": READINGS, "raise": "measurement > 50"},
    "held": {"from": READINGS, "raise": "measurement > 60", "clear": "measurement < 30", "for": "20s"},
    "silence": {"from": READINGS, "silence": "30s"},
    "windows": {"from": WINDOWS, "raise": "total > 90", "clear": "total < 60", "for": "30s"},
}
LIMITS = {"level": (50, 50, 0), "held": (60, 30, 20), "windows": (90, 60, 30)}
Event = tuple[int, datetime, datetime, datetime | None]


def opened(folder: Path, kind: str, **changes: Any) -> Silver:
    made = {"name": "hot", "by": BY, **THRESHOLDS[kind], **changes}
    if changes.get("by", BY) is None:
        del made["by"]
    return Silver(folder, [definition("tumbling")] if made["from"] == WINDOWS else [], {"threshold": [made]})


def computed(silver: Silver) -> None:
    silver.compute(*({WINDOWS} & silver.context.tables.keys()), NAME, EVENTS)


def events(silver: Silver) -> list[Event]:
    columns = ("series", "pending_at", "raised_at", "cleared_at")
    rows = silver.rows(EVENTS).select(columns).rows()
    return sorted((int(series.split("/")[2]), *times) for series, *times in rows)


# --- the reference -----------------------------------------------------------------------------------------------


def reference(kind: str, rows: list[Row]) -> list[Event]:
    """Plain Python over each series in order of event time; all rows are of one sender."""
    timed = sorted((sensor, START + timedelta(seconds=second), value) for sensor, second, value in rows)
    reached = max((at for _, at, _ in timed), default=START)
    behind = timedelta(0)
    if kind == "windows":
        behind = timedelta(seconds=20)
        found = aligned(timed, behind, behind)
        timed = sorted(
            (sensor, start, sum(v for _, v in held)) for (sensor, start), (end, held) in found.items() if end <= reached
        )
    made: list[Event] = []
    for sensor in sorted({sensor for sensor, *_ in timed}):
        series = [(at, value) for s, at, value in timed if s == sensor]
        made += silences(sensor, series, reached) if kind == "silence" else runs(kind, sensor, series, reached - behind)
    return made


def silences(sensor: int, series: list[tuple[datetime, float]], reached: datetime) -> list[Event]:
    made: list[Event] = []
    times: list[datetime | None] = [at for at, _ in series]
    for at, following in zip(times, [*times[1:], None], strict=True):
        assert at is not None
        begins = at + timedelta(seconds=30)
        if (begins <= reached) if following is None else (following > begins):
            made.append((sensor, begins, begins, following))
    return made


def runs(kind: str, sensor: int, series: list[tuple[datetime, float]], reached: datetime) -> list[Event]:
    high, low, wait = LIMITS[kind]
    waits, began, made = timedelta(seconds=wait), None, list[Event]()
    for at, value in series:
        if began is None and value > high:
            began = at
        elif began is not None and (value <= high if high == low else value < low):
            if at > began + waits:
                made.append((sensor, began, began + waits, at))
            began = None
    if began is not None and began + waits <= reached:
        made.append((sensor, began, began + waits, None))
    return made


# --- any order ---------------------------------------------------------------------------------------------------


def carried(folder: Path, kind: str, batches: list[list[Row]], crashed: list[tuple[int, bool]]) -> Silver:
    silver = opened(folder, kind)
    for i, batch in enumerate(batches):
        silver.append(batch)
        carry_through(silver, crashed[i] if i < len(crashed) else None, lambda: computed(silver))
    return silver


@pytest.mark.parametrize("kind", THRESHOLDS)
@given(arrivals, crashes)
@example([[(0, 100)], [(0, 0)], [(0, 50)], [(0, 49), (0, 51), (1, 200)]], [(2, True)])
@example([[(0, 200)], [(0, 10), (0, 190)], [(0, 100)], [(0, 40), (0, 160)]], [(1, False)])
@example([[(0, 49), (0, 157), (0, 310), (1, 29)], [(0, 190), (0, 510), (1, 320), (1, 430)]], [])
@example([[(0, 160), (0, 163), (0, 570)], [(0, 46)]], [])
@settings(max_examples=5)
def test_any_arrival_equals_the_reference(
    kind: str, batches: list[list[tuple[int, int]]], crashed: list[tuple[int, bool]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        rows = distinct(batches)
        silver = carried(folder, kind, rows, crashed)
        assert events(silver) == reference(kind, [row for batch in rows for row in batch])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_comparison_bites(tmp_path: Path, kind: str) -> None:
    rows: list[Row] = [(0, 0, 70.0), (0, 40, 95.0), (0, 60, 10.0), (0, 100, 95.0), (0, 200, 1.0)]
    silver = carried(tmp_path, kind, [rows], [])
    assert events(silver) == reference(kind, rows) != []
    assert events(silver) != reference(kind, rows[:-2])
    assert events(silver) != reference(kind, [*rows, (0, 50, 1.0), (0, 61, 95.0)])


# --- what has stopped, what is told ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "wait"), [("held", 20), ("silence", 30), ("windows", 50)])
def test_fires_when_input_has_stopped(tmp_path: Path, kind: str, wait: int) -> None:
    silver = opened(tmp_path, kind)
    silver.now = START + timedelta(seconds=5)
    silver.append([(0, 0, 95.0)])
    computed(silver)
    assert events(silver) == []
    silver.now = START + timedelta(seconds=wait + 60)  # the sender is idle by then
    assert is_due(silver)
    computed(silver)
    begins = START + timedelta(seconds=30 if kind == "silence" else 0)
    raised = START + timedelta(seconds=20 if kind == "held" else 30)
    assert events(silver) == [(0, begins, raised, None)]
    assert not is_due(silver)


def is_due(silver: Silver) -> bool:
    """Whether a run is asked for because of them."""
    tables = (silver.context.tables[name] for name in (WINDOWS, NAME) if name in silver.context.tables)
    return any(not due_windows(silver.context, table).is_empty() for table in tables)


def test_late_row_corrects_an_event_and_retracts_one(tmp_path: Path) -> None:
    silver = opened(tmp_path, "held")
    silver.append([(0, 0, 95.0), (0, 100, 95.0), (0, 200, 10.0)])
    computed(silver)
    at = [START + timedelta(seconds=s) for s in (0, 20, 40, 60, 100, 120, 200)]
    assert events(silver) == [(0, at[0], at[1], at[6])]
    before = silver.context.lakehouse.head(silver.context.tables[EVENTS].stored).batch_id
    silver.append([(0, 40, 10.0)])
    computed(silver)
    assert events(silver) == [(0, at[0], at[1], at[2]), (0, at[4], at[5], at[6])]
    silver.append([(0, 10, 10.0)])
    computed(silver)
    assert events(silver) == [(0, at[4], at[5], at[6])]
    fed = silver.stored(EVENTS).filter(pl.col("batch_id") > before).sort("pending_at")
    assert fed.select("pending_at", "is_retracted").rows() == [(at[0], True), (at[4], False)]


def test_series_of_several_senders_waits_for_the_last(tmp_path: Path) -> None:
    silver = opened(tmp_path, "held", by=["site_id"])

    def told(rows: list[Row]) -> list[datetime | None]:
        silver.append_frame(silver.readings, silver.frame(rows).with_columns(device_id=pl.col("sensor_id")))
        computed(silver)
        return silver.rows(EVENTS)["pending_at"].to_list()

    assert told([(0, 0, 70.0), (1, 1, 50.0), (0, 30, 70.0)]) == [], "the other device may still say that it ended"
    assert told([(1, 25, 50.0)]) == [START]


def test_event_tells_what_caused_it(tmp_path: Path) -> None:
    message = "{sensor_id} of {device_id} has {round(total, 1)}, that's much"
    silver = opened(tmp_path, "windows", **{"for": "0s"}, message=message, severity="critical", by=None)
    silver.append([(7, 1, 95.5), (7, 41, 1.0)])
    silver.now += timedelta(hours=1)
    computed(silver)
    (row,) = silver.rows(EVENTS).to_dicts()
    assert (row["threshold"], row["series"], row["source"]) == ("hot", "101/1/7", WINDOWS)
    assert (row["message"], row["severity"]) == ("7 of 1 has 95.5, that's much", "critical")
    cause = json.loads(row["cause"])
    assert cause == {
        "window_start": "2026-03-01T12:00:00+00:00",
        "window_end": "2026-03-01T12:00:20+00:00",
        "total": 95.5,
    }


def test_only_new_rows_are_read(tmp_path: Path) -> None:
    """An alarm that has stood for days is not read again from its start."""
    silver = opened(tmp_path, "level")
    silver.append([(0, second, 95.0) for second in range(0, 200_000, 100)])
    computed(silver)
    read: list[int] = []
    original = silver.context.lakehouse.read_files

    def read_files(stored: StoredTable, *args: Any, **options: Any) -> pl.DataFrame:
        found = original(stored, *args, **options)
        read.extend([found.height] if stored.name == "sensor_readings" else [])
        return found

    silver.context.lakehouse.read_files = read_files  # type: ignore[method-assign]
    silver.append([(0, 200_000, 95.0)])
    computed(silver)
    silver.append([(0, 200_100, 1.0)])
    computed(silver)
    assert 0 < max(read) < 10
    assert events(silver)[0][3] == START + timedelta(seconds=200_100)


def test_changed_threshold_judges_stored_rows_again(tmp_path: Path) -> None:
    silver = opened(tmp_path, "level")
    silver.append([(0, 0, 70.0), (0, 100, 10.0), (0, 1000, 90.0), (1, 5, 90.0)])
    computed(silver)
    assert len(events(silver)) == 3
    again = opened(tmp_path, "level", **{"raise": "measurement > 80"})
    computed(again)
    times = [START + timedelta(seconds=second) for second in (1000, 5)]
    assert events(again) == [(0, times[0], times[0], None), (1, times[1], times[1], None)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raise": "measurment > 1"}, "raise names 'measurment', which is no column: did you mean 'measurement'?"),
        ({"raise": "measurement"}, "raise must be a condition, got 'measurement', which is DOUBLE"),
        ({"raise": None}, "raise is missing; it, or silence, says when it is raised (not both)"),
        ({"clear": "max(measurement) < 1"}, "clear: Binder Error: WHERE clause cannot contain aggregates"),
        ({"silence": "5m", "raise": None, "for": "1m"}, "for is not of a silence; write silence = '6m'"),
        ({"silence": "5m", "raise": None, "clear": "true"}, "clear is not of a silence: the next row ends it"),
        ({"message": "at {measurment}"}, "message: {measurment} names 'measurment', which is no column: did you mean"),
        ({"message": "at {measurement"}, "message has a brace without its other half, got 'at {measurement'"),
        ({"from": "silver.sensor_reading"}, "from: 'silver.sensor_reading' is no table; did you mean"),
        ({"from": "ops.batches"}, "from: 'ops.batches' is no table of silver or gold; there are"),
        ({"severity": "bad"}, "severity"),
        ({"rise": "true"}, "rise is not a known key; did you mean raise?"),
        ({"name": "sensor_windows_1m"}, "gold.sensor_windows_1m is there already; choose another name"),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    given_ = {"name": "hot", **THRESHOLDS["level"], **changes}
    made = {key: value for key, value in given_.items() if value is not None}
    with pytest.raises(ConfigurationError) as refused:
        load_tables(declared=[Declarations("secchi.toml", thresholds=(made,))])
    told = str(refused.value)
    assert told.startswith(f"secchi.toml: threshold {made['name']!r}") and message in told and "\n" not in told
