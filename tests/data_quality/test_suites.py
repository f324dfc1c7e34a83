"""Great Expectations suites: what a result tells, and its page."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from assets.table import Table
from data_quality.gold_sensor_windows_1m import ORDER
from data_quality.suites import EXAMPLES, SuiteResult, run_suite
from tests.data_quality.cases import gold_sensor_windows_1m as windows
from tests.data_quality.cases import plain
from tests.data_quality.cases import silver_sensor_readings as readings

Check = Callable[[Table, pl.DataFrame], SuiteResult]


def unmet(result: SuiteResult) -> set[str]:
    return {e["description"] for e in result.expectations if not e["success"]}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Check:
    folder = tmp_path_factory.mktemp("suites")

    def check(table: Table, rows: pl.DataFrame) -> SuiteResult:
        return run_suite(table, rows, folder / "quality" / f"{table.name}.html")

    return check


def test_rounded_mean_is_not_held_against_a_window(checked: Check) -> None:
    rows = windows.rows().with_columns(mean=pl.lit(sum([0.1] * 3) / 3))
    assert rows["mean"][0] > rows["maximum"][0]
    assert checked(windows.TABLE, rows).success


def test_order_of_statistics_covers_all_of_them() -> None:
    assert {name for pair in ORDER for name in pair} == {"minimum", "mean", "maximum", "p50", "p95", "p99"}


def test_failure_shows_examples_by_key(checked: Check) -> None:
    rows = plain.rows().with_columns(count=pl.when(pl.int_range(pl.len()) > 2).then(-5).otherwise(1))
    result = checked(plain.TABLE, rows.with_columns(pl.col("count").cast(pl.Int32)))
    (failed,) = [e for e in result.expectations if not e["success"]]
    assert (failed["unexpected"], failed["severity"], len(failed["examples"])) == (7, "critical", EXAMPLES)
    assert failed["examples"][0] == {"name": "n3", "count": "-5"}
    json.dumps(result.expectations)


def test_expectation_that_cannot_be_evaluated_is_not_met_and_says_why(checked: Check) -> None:
    result = checked(readings.TABLE, readings.rows().drop("unit_canonical"))
    failed = {e["description"]: e for e in result.expectations if not e["success"]}
    assert "unit_canonical" in failed["unit_canonical is a unit of assets/silver/spellings.toml"]["error"]


def test_no_rows_meet_every_row_expectation(checked: Check) -> None:
    result = checked(plain.TABLE, plain.rows().clear())
    assert result.success


def test_page_needs_nothing_from_elsewhere_and_shows_values_as_text(checked: Check) -> None:
    hostile = "<script>alert(1)</script>"
    rows = pl.concat([plain.rows(), plain.rows()[:1].with_columns(name=pl.lit(hostile), count=pl.lit(-1, pl.Int32))])
    result = checked(plain.TABLE, rows)
    page = result.html.read_text("utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert hostile not in page and "&lt;script&gt;" in page
    assert "count is from 0 to any" in page and "11 rows" in page
    assert "A table with one key column &amp; each type." in page
    assert [path.name for path in result.html.parent.glob("plain*")] == ["plain.html"]


def test_suite_leaves_no_files_behind(checked: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    checked(plain.TABLE, plain.rows())
    assert list(tmp_path.iterdir()) == []
