"""Joins through the tables: any order of arrival and batching gives the pairs of all rows at once."""

import shutil
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.assets.test_joining import Event, definition, frame, pairs_of, reference
from tests.pipelines.event_time import Silver, machine_sample

MACHINES, POWERS, POWER = "silver.machine_readings", "gold.powers", "gold.machine_power"

events = st.tuples(st.sampled_from("XY"), st.sampled_from(["torque", "speed"]), st.integers(0, 60))


@pytest.mark.parametrize("match", ["latest_both", "nearest", "all"])
@given(st.lists(events, max_size=50, unique=True), st.lists(st.integers(1, 20), min_size=1, max_size=5))
@settings(max_examples=5)
def test_any_arrival_equals_the_reference(match: str, keys: list[tuple[str, str, int]], sizes: list[int]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        silver = Silver(folder, [definition(match)])
        rows: list[Event] = [(axis, quantity, at, float(at % 7 + 1)) for axis, quantity, at in keys]
        left = rows
        for size in [*sizes, len(rows)]:
            silver.append_frame(silver.context.tables[MACHINES], frame(left[:size]).drop("batch_id"))
            left = left[size:]
            silver.compute(POWERS)
        assert pairs_of(silver.rows(POWERS)) == sorted(reference(match, rows))
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
