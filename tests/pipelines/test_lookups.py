"""Lookups through the tables: any arrival, any change of the side input, any crash give the rows of all at once."""

import os
import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.micro_batch import is_behind
from pipelines.preview import preview
from pipelines.reference_refresh import run_refresh
from pipelines.tracing import trace
from resources.errors import SourceUnavailableError
from tests.pipelines.event_time import START, Row, Silver, carry_through

NAME, FACTORS = "gold.scaled", "reference.factors"
SIZE = timedelta(seconds=20)
Factors = dict[tuple[int, int], int]
"""Sensor and second from which on it is right to factor."""
Told = list[tuple[Any, ...]]

DEFINITIONS: dict[str, dict[str, Any]] = {
    "lookup": {"kind": "lookup", "select": {"scaled": "measurement * coalesce(factor.factor, 1)"}},
    "window": {
        "by": ["site_id", "device_id", "sensor_id"],
        "window": {"kind": "tumbling", "size": "20s"},
        "aggregate": {"scaled": "sum(measurement * coalesce(factor.factor, 1))"},
    },
}


def silver_with(folder: Path, kind: str, version: str, *, dated: bool) -> Silver:
    reference = {
        "name": "factors",
        "file": str(folder / "factors.csv"),
        "key": ["sensor_id"],
        "columns": {"sensor_id": "BIGINT", "factor": "DOUBLE"},
        **({"valid_from": "since"} if dated else {}),
    }
    definition = {
        "name": "scaled",
        "from": "silver.sensor_readings",
        "lookup": [{"name": "factor", "from": FACTORS, "version": version}],
        **DEFINITIONS[kind],
    }
    return Silver(folder / "lake", [definition], {"reference": [reference]})


def write_factors(folder: Path, factors: Factors, moment: int) -> None:
    at = (START + timedelta(seconds=second) for _, second in factors)
    lines = [f"{s},{f},{t.isoformat()}" for ((s, _), f), t in zip(factors.items(), at, strict=True)]
    file = folder / "factors.csv"
    file.write_text("\n".join(["sensor_id,factor,since", *lines]))
    os.utime(file, (moment, moment))


def refresh(silver: Silver) -> None:
    assert run_refresh(silver.context, silver.context.tables[FACTORS]).problem is None


def expected(silver: Silver, kind: str, version: str, rows: list[Row]) -> Told:
    """One row after the other, from what the side input's table says in the end."""
    known: dict[int, list[tuple[datetime, datetime | None, float, int]]] = {}
    columns = ("sensor_id", "valid_from", "valid_to", "factor", "version")
    for sensor, *span in silver.stored(FACTORS).select(columns).sort("valid_from").rows():
        known.setdefault(sensor, []).append((span[0], span[1], span[2], span[3]))
    made: Told = []
    for sensor, second, value in rows:
        at = START + timedelta(seconds=second)
        spans = known.get(sensor, [])
        right = [s for s in spans if s[0] <= at and (s[1] is None or at < s[1])] if version == "event_time" else spans
        factor, number = right[-1][2:] if right else (1.0, None)
        made.append((sensor, at, value * factor, number))
    if kind == "lookup":
        return sorted(made, key=str)
    windows: dict[tuple[int, datetime], list[tuple[float, int | None]]] = {}
    for sensor, at, scaled, number in made:
        start = START + (at - START) // SIZE * SIZE
        windows.setdefault((sensor, start), []).append((scaled, number))
    totals = [
        (*key, sum(v for v, _ in held), max((n for _, n in held if n is not None), default=None))
        for key, held in windows.items()
    ]
    return sorted(totals, key=str)


def computed(silver: Silver, kind: str) -> Told:
    time = "observed_at" if kind == "lookup" else "window_start"
    return sorted(silver.rows(NAME).select("sensor_id", time, "scaled", "factor_version").rows(), key=str)


rows_of = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 200)), max_size=10)
factors_of = st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 4).map(lambda n: 40 * n)), st.integers(2, 5))
steps = st.lists(st.one_of(rows_of, factors_of.filter(bool)), min_size=1, max_size=6)
crashes = st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=2)


def carried(
    folder: Path, kind: str, version: str, todo: list[Any], crashed: list[tuple[int, bool]], *, dated: bool
) -> tuple[Silver, list[Row]]:
    """Rows come and the side input changes, in turn; the clock stands within the readings, some are ahead of it."""
    write_factors(folder, {(0, 0): 7}, 1)
    silver, seen = silver_with(folder, kind, version, dated=dated), dict[tuple[int, int], Row]()

    def follow() -> None:
        refresh(silver)
        silver.compute(NAME)

    for number, step in enumerate([*todo, []]):
        silver.now = START + timedelta(seconds=30 * (number + 1))
        if isinstance(step, dict):
            held = step if dated else {(s, 0): f for (s, _), f in step.items()}
            write_factors(folder, held, number + 2)
        else:
            fresh = [key for key in dict.fromkeys(step) if key not in seen]
            made = {key: (key[0], key[1], float((key[1] * 7919) % 101)) for key in fresh}
            seen |= made
            silver.append(made.values())
        carry_through(silver, crashed[number] if number < len(crashed) else None, follow)
    return silver, list(seen.values())


@pytest.mark.parametrize("kind", DEFINITIONS)
@pytest.mark.parametrize(("version", "dated"), [("event_time", True), ("event_time", False), ("newest", False)])
@given(steps, crashes)
@settings(max_examples=6)
def test_any_arrival_and_change_equals_the_reference(
    kind: str, version: str, dated: bool, todo: list[Any], crashed: list[tuple[int, bool]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        silver, rows = carried(folder, kind, version, todo, crashed, dated=dated)
        assert computed(silver, kind) == expected(silver, kind, version, rows)
        reason = is_behind(silver.context)
        assert reason is None or NAME not in reason
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_comparison_bites(tmp_path: Path, kind: str) -> None:
    todo = [[(0, 10), (0, 90), (1, 10)], {(0, 0): 2, (0, 80): 3}]
    silver, rows = carried(tmp_path, kind, "event_time", todo, [], dated=True)
    assert computed(silver, kind) == expected(silver, kind, "event_time", rows)
    assert computed(silver, kind) != expected(silver, kind, "newest", rows)
    assert computed(silver, kind) != expected(silver, kind, "event_time", rows[:-1])


def test_changed_file_rewrites_no_history(tmp_path: Path) -> None:
    """What was right then stays right; the rows from the moment on, which came before it, are made right."""
    write_factors(tmp_path, {(0, 0): 2}, 1)
    silver = silver_with(tmp_path, "lookup", "event_time", dated=False)
    refresh(silver)
    silver.append([(0, 0, 1.0), (0, 400, 1.0)])
    silver.compute(NAME)
    before = silver.rows(NAME)
    assert before["factor_version"].to_list() == [1, 1]
    silver.now = START + timedelta(seconds=300)
    write_factors(tmp_path, {(0, 0): 5}, 2)
    refresh(silver)
    assert is_behind(silver.context) is not None
    silver.compute(NAME)
    after = silver.rows(NAME)
    assert after.select("scaled", "factor_version").rows() == [(2.0, 1), (5.0, 2)]
    assert after[0].equals(before[0]), "also its batch: it was not written again"
    asked = silver.stored("ops.requests").filter(pl.col("table_name") == NAME)
    assert asked["kind"].to_list() == ["rebuild"] and "2026-03-01T12:0" in asked["selection"].item()


def test_final_window_that_a_told_time_changes_is_a_revision(tmp_path: Path) -> None:
    write_factors(tmp_path, {(0, 0): 2}, 1)
    silver = silver_with(tmp_path, "window", "event_time", dated=True)
    refresh(silver)
    silver.append([(0, 0, 1.0), (0, 50, 1.0), (0, 200, 1.0)])
    silver.compute(NAME)
    assert silver.rows(NAME)["is_final"].to_list() == [True, True, False]
    write_factors(tmp_path, {(0, 0): 2, (0, 45): 4}, 2)
    refresh(silver)
    silver.compute(NAME)
    told = silver.rows(NAME).select("scaled", "revision", "factor_version").rows()
    assert told == [(2.0, 0, 1), (4.0, 1, 2), (4.0, 0, 2)]


def test_broken_side_input_goes_on_serving(tmp_path: Path) -> None:
    write_factors(tmp_path, {(0, 0): 2}, 1)
    silver = silver_with(tmp_path, "lookup", "event_time", dated=False)
    refresh(silver)
    (tmp_path / "factors.csv").unlink()
    assert run_refresh(silver.context, silver.context.tables[FACTORS]).problem
    silver.append([(0, 0, 1.0)])
    silver.compute(NAME)
    assert silver.rows(NAME)["scaled"].to_list() == [2.0]


def test_calculation_waits_for_the_first_version(tmp_path: Path) -> None:
    silver = silver_with(tmp_path, "lookup", "event_time", dated=False)
    silver.append([(0, 0, 1.0)])
    with pytest.raises(SourceUnavailableError, match=r"reference.factors: has no version yet: .*factors.csv: No such"):
        silver.compute(NAME)
    write_factors(tmp_path, {(0, 0): 2}, 1)
    refresh(silver)
    silver.compute(NAME)
    assert silver.rows(NAME)["scaled"].to_list() == [2.0]


def test_row_is_traced_to_the_one_that_it_stands_for(tmp_path: Path) -> None:
    write_factors(tmp_path, {(0, 0): 2}, 1)
    silver = silver_with(tmp_path, "lookup", "event_time", dated=False)
    silver.append([(0, second, 1.0) for second in range(5)])
    silver.compute(NAME)
    key = {"site_id": "101", "device_id": "1", "sensor_id": "0", "unit": "BAR", "observed_at": START.isoformat()}
    (origin,) = trace(silver.context, NAME, key).origins
    assert origin.rows["observed_at"].to_list() == [START]


def test_preview_looks_up_and_writes_nothing(tmp_path: Path) -> None:
    write_factors(tmp_path, {(0, 0): 2}, 1)
    silver = silver_with(tmp_path, "lookup", "event_time", dated=False)
    silver.append([(0, 0, 1.0)])
    silver.now = START + timedelta(minutes=1)
    seen = preview(silver.context, "scaled", timedelta(hours=1))
    assert seen.select("scaled", "factor_version").rows() == [(2.0, 1)]
    assert not silver.context.lakehouse.exists(silver.context.tables[FACTORS].stored)


def test_function_reads_what_was_looked_up(tmp_path: Path) -> None:
    """The way that a function with a lookup of its own is pointed to."""
    write_factors(tmp_path, {(0, 0): 2}, 1)
    (tmp_path / "scaled_rule.py").write_text(
        "import polars as pl\n\n\ndef most(rows):\n"
        "    by = ['site_id', 'device_id', 'sensor_id', 'window_start']\n"
        "    return rows.group_by(by).agg(most=pl.col('scaled').max())\n"
    )
    silver = silver_with(tmp_path, "lookup", "event_time", dated=True)
    (definition,) = silver.calculations
    reader = {
        "name": "most_scaled",
        "from": NAME,
        "by": ["site_id", "device_id", "sensor_id"],
        "window": {"kind": "session", "gap": "30s", "max": "10m"},
        "function": "scaled_rule:most",
        "columns": {"most": "DOUBLE"},
    }
    both = Silver(silver.folder, [reader, definition], silver.options, str(tmp_path / "secchi.toml"))
    refresh(both)
    for rows in ([(0, 0, 1.0), (0, 40, 5.0)], [(0, 20, 3.0)]):
        both.append(rows)
        both.compute(NAME, "gold.most_scaled")
    assert both.rows("gold.most_scaled").select("window_start", "most").rows() == [(START, 10.0)]
    write_factors(tmp_path, {(0, 0): 2, (0, 30): 4}, 2)
    refresh(both)
    both.compute(NAME, "gold.most_scaled")
    assert both.rows("gold.most_scaled")["most"].to_list() == [20.0]
