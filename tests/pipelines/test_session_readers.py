"""A session that a late row merges or moves vanishes for every reader: any order of arrival, batching and crash."""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings

from tests.pipelines.event_time import START, Row, Silver, aligned, carry_through, sessions
from tests.pipelines.test_windows import BY, GAP, LONGEST, NAME, arrivals, crashes, definition, distinct

READINGS, OUT, EVENTS = "silver.sensor_readings", "gold.reader", "gold.threshold_events"
MINUTE, NEAR = timedelta(seconds=60), timedelta(seconds=5)
READERS: dict[str, dict[str, Any]] = {
    "windows": {
        "by": BY,
        "window": {"kind": "tumbling", "size": "60s"},
        "aggregate": {"sessions": "count()", "readings": "sum(readings)"},
    },
    "join": {
        "kind": "join",
        "by": BY,
        "within": "5s",
        "match": "all",
        "left": {"name": "session", "from": NAME},
        "right": {"name": "reading", "from": READINGS},
        "select": {"held": "session.readings", "measured": "reading.measurement"},
    },
    "lookup": {
        "kind": "lookup",
        "lookup": [{"name": "site", "from": "reference.sites"}],
        "select": {"held": "readings", "site": "site.name"},
    },
    "threshold": {"by": BY, "raise": "readings > 2"},
}
Told = list[tuple[Any, ...]]


def opened(folder: Path, reader: str) -> Silver:
    sites = folder / "sites.csv"
    sites.write_text("site_id,name,region,ranking_score,latitude,longitude,time_zone\n101,Mill,north,1,2,3,\n")
    made = {"name": "reader", **({} if reader == "join" else {"from": NAME}), **READERS[reader]}
    options = {"reference": [{"name": "sites", "file": str(sites)}]}
    calculations = [definition("session")] if reader == "threshold" else [made, definition("session")]
    silver = Silver(folder / "lake", calculations, options | ({"threshold": [made]} if reader == "threshold" else {}))
    return silver


def expected(reader: str, rows: list[Row]) -> Told:
    timed = [(sensor, START + timedelta(seconds=second), value) for sensor, second, value in rows]
    found = [(s, start, end, len(held)) for (s, start), (end, held) in sessions(timed, GAP, LONGEST).items()]
    if reader == "windows":
        hours = aligned([(s, start, count) for s, start, _, count in found], MINUTE, MINUTE)
        return sorted((s, at, len(held), sum(int(n) for _, n in held)) for (s, at), (_, held) in hours.items())
    if reader == "join":
        return sorted(
            (s, start, at, count, value)
            for s, start, _, count in found
            for sensor, at, value in timed
            if sensor == s and abs(at - start) <= NEAR
        )
    if reader == "lookup":
        return sorted((s, start, count, "Mill") for s, start, _, count in found)
    reached = max((at for _, at, _ in timed), default=START)
    made: Told = []
    for sensor in (0, 1):
        state: Any = None
        for s, start, end, count in sorted(found):
            if s != sensor or end > reached:
                continue
            if count > 2 and state is None:
                state = start
            elif count <= 2 and state is not None:
                made, state = [*made, (sensor, state, start)], None
        if state is not None:
            made.append((sensor, state, None))
    return sorted(made, key=str)


def computed(silver: Silver, reader: str) -> Told:
    columns = {
        "windows": ("sensor_id", "window_start", "sessions", "readings"),
        "join": ("sensor_id", "session_at", "reading_at", "held", "measured"),
        "lookup": ("sensor_id", "window_start", "held", "site"),
        "threshold": ("sensor_id", "pending_at", "cleared_at"),
    }
    return sorted(silver.rows(OUT).select(columns[reader]).rows(), key=str if reader == "threshold" else None)


def carried(folder: Path, reader: str, batches: list[list[Row]], crashed: list[tuple[int, bool]]) -> Silver:
    silver = opened(folder, reader)
    for i, batch in enumerate(batches):
        silver.append(batch)
        carry_through(silver, crashed[i] if i < len(crashed) else None, lambda: silver.compute(NAME, OUT))
    return silver


@pytest.mark.parametrize("reader", READERS)
@given(arrivals, crashes)
@example([[(0, 0), (0, 18), (0, 5), (0, 22)], [(0, 9)], [(0, 200)]], [(2, True)])
@example([[(0, 0), (0, 1), (0, 2), (0, 18), (0, 190)], [(0, 10)], [(0, 150)]], [])
@settings(max_examples=5)
def test_any_arrival_equals_the_reference(
    reader: str, batches: list[list[tuple[int, int]]], crashed: list[tuple[int, bool]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        rows = distinct(batches)
        silver = carried(folder, reader, rows, crashed)
        assert computed(silver, reader) == expected(reader, [row for batch in rows for row in batch])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("reader", READERS)
def test_vanished_session_is_taken_back(tmp_path: Path, reader: str) -> None:
    """Two sessions that were final become one: what stood for the second one is there no more."""
    first: list[Row] = [(0, second, 1.0) for second in (0, 1, 2, 60, 78, 79, 80, 300)]
    silver = carried(tmp_path, reader, [first], [])
    before = computed(silver, reader)
    assert before == expected(reader, first)
    silver.append([(0, 69, 1.0)])
    silver.compute(NAME, OUT)
    rows = [*first, (0, 69, 1.0)]
    assert computed(silver, reader) == expected(reader, rows) != before
    if reader in ("join", "lookup"):
        assert silver.stored(OUT)["is_retracted"].any()
    assert silver.rows(NAME).filter(pl.col("window_start") == START + timedelta(seconds=78)).is_empty()


def test_vanished_session_has_no_score(tmp_path: Path) -> None:
    group = {"name": "runs", "from": NAME, "by": BY, "values": ["readings"]}
    silver = Silver(tmp_path, [definition("session")], {"ml": {"group": [group]}})
    silver.append([(0, second, 1.0) for second in (0, 60, 78, 300)])
    silver.compute(NAME, "gold.runs_scores")
    at = [START + timedelta(seconds=second) for second in (0, 60, 78)]
    assert silver.rows("gold.runs_scores")["window_start"].to_list() == at
    silver.append([(0, 69, 1.0)])
    silver.compute(NAME, "gold.runs_scores")
    assert silver.rows("gold.runs_scores")["window_start"].to_list() == at[:2]
