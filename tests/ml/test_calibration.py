"""Thresholds of the anomaly scores."""

import polars as pl

from ml.calibration import thresholds


def scores(**series: list[float | None]) -> pl.DataFrame:
    rows = [
        {"site_id": 1, "device_id": 2, "sensor_id": 3, "unit": unit, "score": score}
        for unit, values in series.items()
        for score in values
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def test_threshold_is_exceeded_by_at_most_the_rate_of_the_training_windows():
    values = [number / 1000 for number in range(1000)]
    (threshold,) = thresholds(scores(a=values), 0.01)["threshold"].to_list()
    assert 0 < sum(value > threshold for value in values) <= 10


def test_quiet_series_has_the_floor_of_all_and_a_lively_one_its_own():
    quiet, lively = [0.3 + number / 10_000 for number in range(100)], [0.5 + number / 1000 for number in range(100)]
    found = dict(thresholds(scores(quiet=quiet, lively=lively), 0.1).select("unit", "threshold").iter_rows())
    pooled = sorted([*quiet, *lively])[180]
    assert found["quiet"] == pooled
    assert found["lively"] == lively[90]


def test_windows_without_a_score_do_not_count():
    values: list[float | None] = [number / 100 for number in range(100)]
    assert thresholds(scores(a=values), 0.05).equals(thresholds(scores(a=[*values, None, None]), 0.05))
