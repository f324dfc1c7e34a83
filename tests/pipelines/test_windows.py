"""Tumbling, sliding and session windows in any order of arrival, batching and crash equal a one-shot reference."""

import shutil
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from assets.table import Table
from resources.commit import Commit
from tests.pipelines.event_time import (
    START,
    Row,
    Silver,
    Windows,
    aligned,
    carry_through,
    machine_sample,
    sessions,
)

GAP, LONGEST = timedelta(seconds=10), timedelta(seconds=60)
KINDS: dict[str, dict[str, Any]] = {
    "tumbling": {"kind": "tumbling", "size": "20s"},
    "sliding": {"kind": "sliding", "size": "25s", "slide": "10s"},
    "session": {"kind": "session", "gap": "10s", "max": "60s"},
}
NAME = "gold.measured"
MACHINES = "silver.machine_readings"
SAMPLED = ("thing", "quantity", "axis", "observed_at", "value")
SUMMED = {"aggregate": {"readings": "count()", "total": "sum(value)"}}
BY = ["site_id", "device_id", "sensor_id"]


def definition(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "measured",
        "from": "silver.sensor_readings",
        "by": BY,
        "window": KINDS[kind],
        "aggregate": {"readings": "count()", "total": "sum(measurement)", "last": "last(measurement)"},
        **changes,
    }


def reference(kind: str, rows: list[Row]) -> Windows:
    timed = [(sensor, START + timedelta(seconds=second), value) for sensor, second, value in rows]
    if kind == "session":
        return sessions(timed, GAP, LONGEST)
    size, slide = {"tumbling": (20, 20), "sliding": (25, 10)}[kind]
    return aligned(timed, timedelta(seconds=size), timedelta(seconds=slide))


def expected(kind: str, rows: list[Row]) -> list[tuple[Any, ...]]:
    found = reference(kind, rows)
    return sorted(
        (sensor, start, end, len(held), float(sum(v for _, v in held)), held[-1][1])
        for (sensor, start), (end, held) in found.items()
    )


def computed(silver: Silver) -> list[tuple[Any, ...]]:
    columns = ("sensor_id", "window_start", "window_end", "readings", "total", "last")
    return sorted(silver.rows(NAME).select(columns).rows())


sensors = st.integers(0, 1)
seconds = st.one_of(st.integers(0, 200), st.integers(0, 60).map(lambda n: n * 10))
arrivals = st.lists(st.lists(st.tuples(sensors, seconds), max_size=12), min_size=1, max_size=6)
crashes = st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=2)


def distinct(batches: list[list[tuple[int, int]]]) -> list[list[Row]]:
    """Silver has each key once: a repetition is left out. Values are whole, so that sums are exact."""
    seen: set[tuple[int, int]] = set()
    made: list[list[Row]] = []
    for batch in batches:
        fresh = list(dict.fromkeys(row for row in batch if row not in seen))
        seen |= set(fresh)
        made.append([(sensor, second, float((second * 7919) % 101)) for sensor, second in fresh])
    return made


def carried(folder: Path, kind: str, batches: list[list[Row]], crashed: list[tuple[int, bool]]) -> Silver:
    silver = Silver(folder, [definition(kind)])
    for i, batch in enumerate(batches):
        silver.append(batch)
        carry_through(silver, crashed[i] if i < len(crashed) else None, lambda: silver.compute(NAME))
    return silver


@pytest.mark.parametrize("kind", KINDS)
@given(arrivals, crashes)
@example([[(0, n * 10) for n in range(0, 20, 2)], [(0, n * 10) for n in range(1, 20, 2)]], [])
@example([[(0, 0), (0, 30)], [(0, 60)], [(0, 10), (0, 20)], [(0, 40), (0, 50), (0, 70)]], [(1, True)])
@settings(max_examples=12)
def test_any_arrival_equals_the_reference(
    kind: str, batches: list[list[tuple[int, int]]], crashed: list[tuple[int, bool]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        rows = distinct(batches)
        silver = carried(folder, kind, rows, crashed)
        assert computed(silver) == expected(kind, [row for batch in rows for row in batch])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_comparison_bites(tmp_path: Path, kind: str) -> None:
    rows: list[Row] = [(0, second, 1.0) for second in range(0, 100, 5)]
    silver = carried(tmp_path, kind, [rows], [])
    assert computed(silver) == expected(kind, rows)
    assert computed(silver) != expected(kind, rows[:-1])
    assert computed(silver) != expected(kind, [*rows, (0, 3, 1.0)])


def test_late_row_merges_sessions_and_the_vanished_one_is_told_to_readers(tmp_path: Path) -> None:
    silver = carried(tmp_path, "session", [[(0, 0, 1.0), (0, 18, 1.0)], []], [])
    assert silver.rows(NAME)["readings"].to_list() == [1, 1]
    before = silver.context.lakehouse.head(silver.context.tables[NAME].stored).batch_id
    silver.append([(0, 9, 1.0)])
    silver.compute(NAME)
    assert silver.rows(NAME)["readings"].to_list() == [3]
    fed = silver.stored(NAME).filter(pl.col("batch_id") > before).sort("window_start")
    second = START + timedelta(seconds=18)
    assert fed.select("window_start", "is_retracted").rows() == [(START, False), (second, True)]
    assert fed["revision"].to_list() == [1, 0], "the first one was final, the other one was still open"


def test_retracted_row_stays_until_its_readers_have_passed(tmp_path: Path) -> None:
    """A table that reads the sessions is behind: its row may not go, however often the file is rewritten."""
    silver = carried(tmp_path, "session", [[(0, 0, 1.0), (0, 18, 1.0)]], [])
    table = silver.context.tables[NAME]
    silver.context.tables = {**silver.context.tables, "gold.reader": _reader(table)}
    silver.append([(0, 9, 1.0)])
    silver.compute(NAME)
    silver.append([(0, 1, 1.0)])
    silver.compute(NAME)
    assert silver.stored(NAME)["is_retracted"].sum() == 1
    reader = silver.context.tables["gold.reader"].stored
    to = {NAME: silver.context.lakehouse.head(table.stored).batch_id}
    silver.context.lakehouse.commit_once(Commit(reader, reader.identifier, {}, to, 1))
    silver.append([(0, 2, 1.0)])
    silver.compute(NAME)
    assert silver.stored(NAME)["is_retracted"].sum() == 0
    assert silver.rows(NAME)["readings"].to_list() == [5]


def _reader(table: Table) -> Table:
    return replace(table, name="reader", inputs=(table,))


def test_long_run_is_cut_and_a_late_row_moves_no_other_piece(tmp_path: Path) -> None:
    silver = carried(tmp_path, "session", [[(0, second, 1.0) for second in range(30, 300, 10)]], [])
    first = silver.rows(NAME)
    assert first["window_start"].to_list() == [START + timedelta(seconds=s) for s in (30, 60, 120, 180, 240)]
    silver.append([(0, 25, 1.0)])
    silver.compute(NAME)
    after = silver.rows(NAME)
    assert after["window_start"][0] == START + timedelta(seconds=25)
    assert after[1:].equals(first[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_window_is_final_behind_its_end_and_lateness(tmp_path: Path, kind: str) -> None:
    silver = Silver(tmp_path, [definition(kind, lateness="30s")])
    silver.now = START + timedelta(seconds=20)
    silver.append([(0, 0, 1.0), (0, 1, 1.0)])
    silver.compute(NAME)
    assert not silver.rows(NAME)["is_final"].any()
    ends: list[datetime] = silver.rows(NAME)["window_end"].to_list()
    silver.now = min(ends) + timedelta(seconds=90)  # the sender is idle by then
    silver.compute(NAME)
    finals = silver.rows(NAME).select("window_end", "is_final").rows()
    assert finals == [(end, end + timedelta(seconds=30) <= silver.now) for end in ends]


def of_devices(silver: Silver, rows: list[Row]) -> None:
    """One batch in which each sensor is of a device of its own."""
    silver.append_frame(silver.readings, silver.frame(rows).with_columns(device_id=pl.col("sensor_id")))
    silver.compute(NAME)


@pytest.mark.parametrize("by", [["site_id"], ["unit"], ["device_id", "unit"]], ids=["some", "none", "one without site"])
def test_window_of_several_senders_waits_for_the_last(tmp_path: Path, by: list[str]) -> None:
    silver = Silver(tmp_path, [definition("tumbling", by=by)])

    def first() -> list[tuple[Any, ...]]:
        rows = silver.rows(NAME).filter(window_start=START)
        return rows.group_by("is_final").agg(pl.col("readings").sum(), pl.col("total").sum()).rows()

    of_devices(silver, [(0, 0, 1.0), (0, 100, 1.0), (1, 5, 2.0)])
    assert first() == [(False, 2, 3.0)]
    of_devices(silver, [(1, 19, 4.0)])
    assert first() == [(False, 3, 7.0)]
    of_devices(silver, [(1, 21, 1.0)])
    assert first() == [(True, 3, 7.0)]
    of_devices(silver, [(2, 3, 8.0), (2, 40, 1.0)])
    assert first() == [(True, 4, 15.0)], "a sender that was not known corrects it"


def test_sender_that_is_silent_holds_no_other_back(tmp_path: Path) -> None:
    silver = Silver(tmp_path, [definition("tumbling", by=["site_id"])])
    of_devices(silver, [(0, 0, 1.0), (1, 5, 2.0)])
    silver.now += timedelta(minutes=2)
    of_devices(silver, [(0, 70, 1.0)])
    assert silver.rows(NAME).select("window_start", "is_final").rows()[0] == (START, True)


@pytest.mark.parametrize("kind", KINDS)
def test_machine_sample_equals_the_reference(tmp_path: Path, kind: str) -> None:
    """A recording in which time goes backwards 646 times, with a gap of 5.66 days, carried in ten batches."""
    sample = machine_sample()
    silver = Silver(tmp_path, [definition(kind, **{"from": MACHINES, "by": ["thing", "quantity", "axis"]}, **SUMMED)])
    for part in sample.iter_slices(-(-sample.height // 10)):
        silver.append_frame(silver.context.tables[MACHINES], part)
        silver.compute(NAME)
    rows = [((t, q, a), at, v) for t, q, a, at, v in sample.select(*SAMPLED).rows()]
    spans = {"tumbling": (20, 20), "sliding": (25, 10)}
    found = (
        sessions(rows, GAP, LONGEST)
        if kind == "session"
        else aligned(rows, *(timedelta(seconds=s) for s in spans[kind]))
    )
    want = {(*s, start, end, len(held), sum(v for _, v in held)) for (s, start), (end, held) in found.items()}
    columns = ("thing", "quantity", "axis", "window_start", "window_end", "readings", "total")
    assert_frame_equal(
        silver.rows(NAME).select(columns).sort(columns[:4]),
        pl.DataFrame(list(want), schema=silver.rows(NAME).select(columns).schema, orient="row").sort(columns[:4]),
        rel_tol=1e-9,
    )
