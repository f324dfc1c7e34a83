"""Measures: each is met by what is usual and not met by what is not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from inspect import getmembers, isfunction
from pathlib import Path
from typing import get_type_hints

import polars as pl
import pytest

from assets.silver.sensor_readings import sensor_readings
from data_quality import measures
from data_quality.measures import Measure, missing_series, quarantined, reconciled, silent, volume, without_reference
from data_quality.suites import SuiteResult, run_suite
from tests.data_quality.cases.silver_sensor_readings import rows as readings

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
LAST = NOW.replace(minute=0) - HOUR


def hours(last: int, *earlier: int) -> pl.DataFrame:
    starts = [LAST, *(LAST - timedelta(days=day) for day in range(1, len(earlier) + 1))]
    return pl.DataFrame({"hour": starts, "rows": [last, *earlier]})


def heard(*ago: timedelta) -> pl.DataFrame:
    return pl.DataFrame({"sender": [f"s{i}" for i in range(len(ago))], "received_at": [NOW - each for each in ago]})


def series(*sensors: int | None) -> pl.DataFrame:
    return pl.DataFrame({"sensor_id": sensors}, {"sensor_id": pl.Int64})


def there(*is_there: bool) -> pl.DataFrame:
    count = len(is_there)
    return pl.DataFrame({"source": ["a"] * count, "hour": [LAST] * count, "is_there": is_there})


CASES: dict[str, tuple[Callable[[], Measure], Callable[[], Measure]]] = {
    "volume": (lambda: volume(hours(100, 90, 100, 110), LAST), lambda: volume(hours(40, 90, 100, 110), LAST)),
    "volume, too much": (lambda: volume(hours(200, 100, 100, 100), LAST), lambda: volume(hours(201, *[100] * 3), LAST)),
    "quarantined": (lambda: quarantined(95, 5), lambda: quarantined(94, 6)),
    "silent": (lambda: silent(heard(HOUR / 2), NOW, HOUR), lambda: silent(heard(HOUR / 2, 2 * HOUR), NOW, HOUR)),
    "missing_series": (
        lambda: missing_series(series(1, None), series(None, 1, 2), HOUR),
        lambda: missing_series(series(1, 3), series(1, 2), HOUR),
    ),
    "without_reference": (
        lambda: without_reference("reference.t", ["sensor_id"], series(1, None), series(1)),
        lambda: without_reference("reference.t", ["sensor_id"], series(1, 2, 2), series(1)),
    ),
    "reconciled": (lambda: reconciled("Rows", there(True, True)), lambda: reconciled("Rows", there(True, False))),
}


def judged(measure: Measure, page: Path) -> tuple[SuiteResult, dict[str, object]]:
    result = run_suite(sensor_readings, readings(), page, [measure])
    return result, result.expectations[-1]


@pytest.mark.parametrize("name", CASES)
def test_measure_is_met_by_what_is_usual_and_by_nothing_else(name: str, tmp_path: Path) -> None:
    usual, unusual = (make() for make in CASES[name])
    result, told = judged(usual, tmp_path / "page.html")
    assert (
        (usual.rows.height or name == "without_reference")
        and result.success
        and told["success"]
        and told["error"] is None
    )
    result, told = judged(unusual, tmp_path / "page.html")
    assert not result.success and not told["success"] and told["error"] is None
    assert (told["description"], told["severity"], told["unexpected"]) == (unusual.description, unusual.severity, 1)


def test_every_measure_has_a_bad_case() -> None:
    makers = {name for name, made in getmembers(measures, isfunction) if get_type_hints(made).get("return") is Measure}
    assert {name for name in makers if not name.startswith("_")} == {name.partition(",")[0] for name in CASES}


def test_examples_tell_subject_and_bounds(tmp_path: Path) -> None:
    _, told = judged(silent(heard(2 * HOUR, HOUR / 2, 3 * HOUR), NOW, HOUR), tmp_path / "page.html")
    assert told["examples"] == [
        {"subject": "s0", "value": "7200.0", "low": "None", "high": "3600.0", "excess": "3600.0"},
        {"subject": "s2", "value": "10800.0", "low": "None", "high": "3600.0", "excess": "7200.0"},
    ]
    assert "s2" in (tmp_path / "page.html").read_text()


def test_what_is_not_known_is_not_expected() -> None:
    assert volume(hours(0, 100, 100), LAST).rows.is_empty()
    assert volume(hours(0, 100, 100, 0), LAST).rows.is_empty()
    assert quarantined(0, 0).rows.is_empty()
    assert silent(heard(timedelta(days=2)), NOW, HOUR).rows.is_empty()


def test_only_what_is_lost_is_critical() -> None:
    assert {name: make().severity for name, (_, make) in CASES.items() if make().severity != "warning"} == {
        "reconciled": "critical"
    }
