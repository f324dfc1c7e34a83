"""Great Expectations suites: each expectation is met by good rows and is not met by bad ones."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.calculation import built_in
from assets.silver.sensor_readings import sensor_readings
from assets.table import UTC_TIME, Table, column, declare
from data_quality.gold_sensor_windows_1m import ORDER
from data_quality.silver_sensor_readings import POSSIBLE
from data_quality.suites import EXAMPLES, SuiteResult, run_suite

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOWS = built_in("sensor_windows_1m")
PLAIN = declare(
    layer="gold",
    name="plain",
    description="A table with one key column & each type.",
    columns=(
        column("name", pl.String, "Name", required=True),
        column("is_on", pl.Boolean, "On"),
        column("raw", pl.Binary, "Bytes"),
        column("count", pl.Int32, "Count", minimum=0),
        column("share", pl.Float64, "Share", maximum=1),
        column("seen_at", UTC_TIME, "Time"),
        column("labels", pl.List(pl.String), "Labels"),
    ),
    key=("name",),
)

Change = Callable[[pl.DataFrame], pl.DataFrame]
Check = Callable[[Table, pl.DataFrame], SuiteResult]


def put(**values: Any) -> Change:
    """Changes the first row."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        bad = rows[:1].with_columns(pl.lit(value, rows.schema[name]).alias(name) for name, value in values.items())
        return pl.concat([bad, rows[1:]])

    return change


def convert(name: str, dtype: Any) -> Change:
    return lambda rows: rows.with_columns(pl.col(name).cast(dtype))


def every(**values: Any) -> Change:
    return lambda rows: rows.with_columns(**{name: pl.lit(value) for name, value in values.items()})


def twice(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows[:1]])


def plain() -> pl.DataFrame:
    row = {"is_on": True, "raw": b"\xff", "count": 1, "share": 0.5, "seen_at": NOON, "labels": ["x"], "batch_id": 1}
    return pl.DataFrame([{"name": f"n{n}", **row} for n in range(10)], schema=PLAIN.schema)


def readings() -> pl.DataFrame:
    units = sorted(POSSIBLE)
    row = {"site_id": 1, "device_id": 2, "measurement": 50.0, "region": "north", "latitude": 1.0, "longitude": 2.0}
    place = {"stream": "a/b", "sequence": 1, "batch_id": 1}
    return pl.DataFrame(
        [
            {
                **row,
                **place,
                "sensor_id": n,
                "unit": units[n % len(units)],
                "unit_canonical": units[n % len(units)],
                "observed_at": NOON,
                "received_at": NOON + timedelta(seconds=1),
                "row": n,
            }
            for n in range(200)
        ],
        schema=sensor_readings.schema,
    )


def windows() -> pl.DataFrame:
    values = {
        "mean": 0.1,
        "minimum": 0.1,
        "maximum": 0.1,
        "p50": 0.1,
        "p95": 0.1,
        "p99": 0.1,
        "first": 0.1,
        "last": 0.1,
    }
    place = {
        "site_id": 1,
        "device_id": 2,
        "unit": "BAR",
        "window_start": NOON,
        "window_end": NOON + timedelta(minutes=1),
    }
    state = {"readings": 3, "stddev": None, "is_final": True, "revision": 0, "is_retracted": False, "batch_id": 1}
    return pl.DataFrame([{**place, **values, **state, "sensor_id": n} for n in range(20)], schema=WINDOWS.schema)


def unmet(result: SuiteResult) -> set[str]:
    return {e["description"] for e in result.expectations if not e["success"]}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Check:
    folder = tmp_path_factory.mktemp("suites")

    def check(table: Table, rows: pl.DataFrame) -> SuiteResult:
        return run_suite(table, rows, folder / "quality" / f"{table.name}.html")

    return check


DECLARED: list[tuple[Change, str]] = [
    (lambda rows: rows.drop("count"), "The table has every declared column"),
    (twice, "No two rows have the same name"),
    (put(name=None), "name is never null"),
    (put(batch_id=None), "batch_id is never null"),
    (convert("name", pl.Binary), "name is String"),
    (convert("is_on", pl.Int8), "is_on is Boolean"),
    (lambda rows: rows.with_columns(raw=pl.lit("x")), "raw is Binary"),
    (convert("count", pl.Float64), "count is Int32"),
    (convert("share", pl.Int64), "share is Float64"),
    (convert("seen_at", pl.String), "seen_at is Datetime"),
    (convert("batch_id", pl.String), "batch_id is Int64"),
    (put(count=-1), "count is from 0 to any"),
    (put(share=1.5), "share is from any to 1"),
]
SILVER: list[tuple[Change, str]] = [
    (twice, "No two rows have the same site_id, device_id, sensor_id, unit, observed_at"),
    (put(unit_canonical="furlong"), "unit_canonical is a unit of assets/silver/spellings.toml"),
    (
        every(received_at=NOON - timedelta(seconds=6)),
        "In 99% of the readings the sender's clock is at most 5 s ahead",
    ),
    (
        every(received_at=NOON + timedelta(hours=1)),
        "Half of the readings arrive within 300 s (a historic load takes longer)",
    ),
]
GOLD: list[tuple[Change, str]] = [
    (put(readings=0), "A window has at least one reading"),
    (put(stddev=-1.0), "stddev is not negative (null with one reading)"),
    (put(window_end=NOON), "A window ends after it starts"),
    (put(minimum=0.2), "minimum is not above mean"),
    (put(mean=0.2), "mean is not above maximum"),
    (put(p50=0.2), "p50 is not above p95"),
    (put(p95=0.2), "p95 is not above p99"),
    (put(p99=0.2), "p99 is not above maximum"),
]
TABLES = {"plain": (PLAIN, plain), "readings": (sensor_readings, readings), "windows": (WINDOWS, windows)}


@pytest.mark.parametrize("name", TABLES)
def test_good_rows_meet_every_expectation(checked: Check, name: str) -> None:
    table, rows = TABLES[name]
    result = checked(table, rows())
    assert (unmet(result), result.success, result.failed) == (set(), True, 0)
    assert result.evaluated == len(result.expectations) > len(table.schema)
    assert all(e["error"] is None for e in result.expectations)


@pytest.mark.parametrize(
    ("name", "change", "description"),
    [(name, *case) for name, cases in (("plain", DECLARED), ("readings", SILVER), ("windows", GOLD)) for case in cases],
)
def test_bad_rows_do_not_meet_the_expectation(checked: Check, name: str, change: Change, description: str) -> None:
    table, rows = TABLES[name]
    result = checked(table, change(rows()))
    assert not result.success
    assert any(text.startswith(description) for text in unmet(result)), unmet(result)


@pytest.mark.parametrize(("side", "step"), [(0, -1.0), (1, 1.0)])
def test_measurement_that_its_unit_cannot_have_is_told_by_unit(checked: Check, side: int, step: float) -> None:
    bad = {unit: bound + step for unit, bounds in POSSIBLE.items() if (bound := bounds[side]) is not None}
    rows = readings()
    value = pl.col("unit_canonical").replace_strict(bad, default=None, return_dtype=pl.Float64)
    result = checked(sensor_readings, rows.with_columns(measurement=value.fill_null(50.0)))
    assert {text.split(" in ")[1].split(" is ")[0] for text in unmet(result)} == set(bad)


def test_every_domain_expectation_has_a_bad_case(checked: Check) -> None:
    """The derived ones are tried on the plain table, whose columns have every type and rule."""
    for table, rows, cases in ((PLAIN, plain, DECLARED), (sensor_readings, readings, SILVER), (WINDOWS, windows, GOLD)):
        tried = (*(description for _, description in cases), "A measurement in ")
        columns = tuple(f"{name} is " for name in table.schema)
        for expectation in checked(table, rows()).expectations:
            text = expectation["description"]
            is_derived = table is not PLAIN and (text.startswith(columns) or text.startswith(("The table", "No two")))
            assert is_derived or text.startswith(tried), text


def test_rounded_mean_is_not_held_against_a_window(checked: Check) -> None:
    rows = windows().with_columns(mean=pl.lit(sum([0.1] * 3) / 3))
    assert rows["mean"][0] > rows["maximum"][0]
    assert checked(WINDOWS, rows).success


def test_order_of_statistics_covers_all_of_them() -> None:
    assert {name for pair in ORDER for name in pair} == {"minimum", "mean", "maximum", "p50", "p95", "p99"}


def test_failure_shows_examples_by_key(checked: Check) -> None:
    rows = plain().with_columns(count=pl.when(pl.int_range(pl.len()) > 2).then(-5).otherwise(1))
    result = checked(PLAIN, rows.with_columns(pl.col("count").cast(pl.Int32)))
    (failed,) = [e for e in result.expectations if not e["success"]]
    assert (failed["unexpected"], failed["severity"], len(failed["examples"])) == (7, "critical", EXAMPLES)
    assert failed["examples"][0] == {"name": "n3", "count": "-5"}
    json.dumps(result.expectations)


def test_expectation_that_cannot_be_evaluated_is_not_met_and_says_why(checked: Check) -> None:
    result = checked(sensor_readings, readings().drop("unit_canonical"))
    failed = {e["description"]: e for e in result.expectations if not e["success"]}
    assert "unit_canonical" in failed["unit_canonical is a unit of assets/silver/spellings.toml"]["error"]


def test_no_rows_meet_every_row_expectation(checked: Check) -> None:
    result = checked(PLAIN, plain().clear())
    assert result.success


def test_page_needs_nothing_from_elsewhere_and_shows_values_as_text(checked: Check) -> None:
    hostile = "<script>alert(1)</script>"
    rows = pl.concat([plain(), plain()[:1].with_columns(name=pl.lit(hostile), count=pl.lit(-1, pl.Int32))])
    result = checked(PLAIN, rows)
    page = result.html.read_text("utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert hostile not in page and "&lt;script&gt;" in page
    assert "count is from 0 to any" in page and "11 rows" in page
    assert "A table with one key column &amp; each type." in page
    assert [path.name for path in result.html.parent.glob("plain*")] == ["plain.html"]


def test_suite_leaves_no_files_behind(checked: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    checked(PLAIN, plain())
    assert list(tmp_path.iterdir()) == []
