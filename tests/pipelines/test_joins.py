"""Joins through the tables: any order of arrival and batching gives the pairs of all rows at once."""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.reference_refresh import run_refresh
from tests.assets.test_joining import Event, definition, frame, pairs_of, reference
from tests.pipelines.event_time import START, Silver, aligned, carry_through, machine_sample
from tests.pipelines.test_windows import crashes

MACHINES, POWERS, POWER = "silver.machine_readings", "gold.powers", "gold.machine_power"

events = st.tuples(st.sampled_from("XY"), st.sampled_from(["torque", "speed"]), st.integers(0, 60))


arrivals = st.lists(events, max_size=50, unique=True)
sizes_of = st.lists(st.integers(1, 20), min_size=1, max_size=5)
Crashes = list[tuple[int, bool]]


def carried(
    silver: Silver, keys: list[tuple[str, str, int]], sizes: list[int], crashed: Crashes, *names: str
) -> list[Event]:
    """Carries the events in batches of the sizes; the rest comes at last."""
    rows: list[Event] = [(axis, quantity, at, float(at % 7 + 1)) for axis, quantity, at in keys]
    left = rows
    for number, size in enumerate([*sizes, len(rows)]):
        silver.append_frame(silver.context.tables[MACHINES], frame(left[:size]).drop("batch_id"))
        left = left[size:]
        carry_through(silver, crashed[number] if number < len(crashed) else None, lambda: silver.compute(*names))
    return rows


@pytest.mark.parametrize("match", ["latest", "next", "latest_both", "nearest", "all"])
@given(arrivals, sizes_of, crashes)
@settings(max_examples=5)
def test_any_arrival_equals_the_reference(
    match: str, keys: list[tuple[str, str, int]], sizes: list[int], crashed: Crashes
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        silver = Silver(folder, [definition(match)])
        rows = carried(silver, keys, sizes, crashed, POWERS)
        assert pairs_of(silver.rows(POWERS)) == sorted(reference(match, rows))
    finally:
        shutil.rmtree(folder)


def read_on(folder: Path) -> Silver:
    """Windows and a lookup that read the pairs."""
    (folder / "names.csv").write_text("axis,label\nX,first\n")
    names: dict[str, Any] = {"name": "names", "file": str(folder / "names.csv"), "key": ["axis"]}
    names |= {"columns": {"axis": "VARCHAR", "label": "VARCHAR"}}
    window = {
        "name": "power_windows",
        "from": POWERS,
        "by": ["thing", "axis"],
        "window": {"kind": "tumbling", "size": "2s"},
        "aggregate": {"pairs": "count()", "total": "sum(product)"},
    }
    label = {
        "name": "labelled",
        "kind": "lookup",
        "from": POWERS,
        "lookup": [{"name": "name", "from": "reference.names"}],
        "select": {"product": "product", "label": "name.label"},
    }
    silver = Silver(folder / "lake", [window, label, definition("latest_both")], {"reference": [names]})
    run_refresh(silver.context, silver.context.tables["reference.names"])
    return silver


@given(arrivals, sizes_of, crashes)
@settings(max_examples=8)
def test_readers_of_a_join_follow_its_pairs(
    keys: list[tuple[str, str, int]], sizes: list[int], crashed: Crashes
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        silver = read_on(folder)
        rows = carried(silver, keys, sizes, crashed, POWERS, "gold.labelled", "gold.power_windows")
        pairs = reference("latest_both", rows)
        labelled = silver.rows("gold.labelled")
        assert pairs_of(labelled) == sorted(pairs)
        assert set(labelled.select("axis", "label").rows()) <= {("X", "first"), ("Y", None)}
        timed = [(axis, START + timedelta(milliseconds=100 * min(t, s)), product) for axis, t, s, product in pairs]
        want = aligned(timed, timedelta(seconds=2), timedelta(seconds=2))
        told = silver.rows("gold.power_windows").select("axis", "window_start", "pairs", "total").rows()
        assert sorted(told) == sorted(
            (a, at, len(held), sum(v for _, v in held)) for (a, at), (_, held) in want.items()
        )
    finally:
        shutil.rmtree(folder)


def test_late_row_retracts_a_pair(tmp_path: Path) -> None:
    silver = Silver(tmp_path, [definition("latest")])
    machines = silver.context.tables[MACHINES]
    silver.append_frame(machines, frame([("X", "torque", 9, 2.0), ("X", "speed", 1, 3.0)]).drop("batch_id"))
    silver.compute(POWERS)
    assert pairs_of(silver.rows(POWERS)) == [("X", 9, 1, 6.0)]
    silver.append_frame(machines, frame([("X", "speed", 5, 4.0)]).drop("batch_id"))
    silver.compute(POWERS)
    assert pairs_of(silver.rows(POWERS)) == [("X", 9, 5, 8.0)]
    assert pairs_of(silver.stored(POWERS).filter("is_retracted")) == [("X", 9, 1, 6.0)]


@pytest.mark.parametrize("parts", [1, 7])
def test_machine_sample_has_its_pairs(tmp_path: Path, parts: int) -> None:
    silver = Silver(tmp_path)
    sample = machine_sample()
    for part in sample.iter_slices(-(-sample.height // parts)):
        silver.append_frame(silver.context.tables[MACHINES], part)
        silver.compute(POWER)
    rows = silver.rows(POWER)
    assert rows.height == 2_621
    speed, torque = pl.col("speed"), pl.col("torque")
    power = pl.min_horizontal((2 * 3.141592653589793 / 60 * torque * speed).abs(), 20_000.0)
    assert rows.select(((power - pl.col("power")).abs() <= 1e-9 * power).all()).item()
    assert rows.select((pl.col("metric") == "power_" + pl.col("axis")).all()).item()
    assert rows.select((pl.min_horizontal("torque_at", "speed_at") == pl.col("observed_at")).all()).item()
