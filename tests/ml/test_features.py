"""The z-scores that the anomaly model sees."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.features import FEATURE_COLUMNS, FEATURES, FURTHEST, KEY, MIN_WINDOWS, SERIES, baselines, features
from tests.ml.windows import frame, window

LEVELS = [10.0 + (minute % 5) for minute in range(50)]


@pytest.fixture(scope="module")
def usual() -> pl.DataFrame:
    """Means 10 to 14 in turn: median 12, median absolute deviation 1."""
    return baselines(frame(*(window(minute, mean=mean) for minute, mean in enumerate(LEVELS))))


def judged(usual: pl.DataFrame, *windows: dict[str, object]) -> list[dict[str, object]]:
    return features(frame(*windows), usual).to_dicts()


def test_baseline_is_median_and_scaled_median_deviation(usual):
    (row,) = usual.to_dicts()
    assert {name: row[name] for name in SERIES} == {"site_id": 101, "device_id": 1001, "sensor_id": 1, "unit": "BAR"}
    assert (row["windows"], row["level_median"], row["level_scale"]) == (50, 12.0, pytest.approx(1.4826))


def test_level_is_distance_from_the_median_in_scales(usual):
    (row,) = judged(usual, window(mean=12 + 3 * 1.4826))
    assert row["feature_level"] == pytest.approx(3.0)
    assert row["reason"] is None


def test_each_feature_reads_its_quantity():
    noisy = [
        window(m, mean=m % 3, stddev=m % 4, first=m % 5, minimum=m % 6, maximum=20 + m % 7, p99=15 + m % 8)
        for m in range(80)
    ]
    training = baselines(frame(*noisy))
    calm = window(1, mean=1, stddev=1.5, first=2, minimum=2.5, maximum=23, p99=18.5)
    changed = {
        "level": {"mean": 90.0},
        "spread": {"stddev": 90.0},
        "slope": {"last": 90.0},
        "range": {"maximum": 90.0},
        "tail": {"p99": 90.0},
    }
    (before,) = judged(training, calm)
    for name, values in changed.items():
        (after,) = judged(training, {**calm, **values})
        moved = {f for f in FEATURES if after[f"feature_{f}"] != before[f"feature_{f}"]}
        assert moved == {name}


def test_change_compares_with_the_window_directly_before(usual):
    rows = judged(usual, window(0, mean=12.0), window(1, mean=13.0), window(3, mean=12.0))
    assert [row["feature_change"] is None for row in rows] == [True, False, True]


def test_change_does_not_cross_series(usual):
    rows = judged(usual, window(0, sensor_id=0), window(1, sensor_id=1))
    assert [row["feature_change"] for row in rows] == [None, None]


def test_unknown_series_has_a_row_and_a_reason(usual):
    rows = judged(usual, window(0), window(0, unit="bar"))
    assert [(row["unit"], row["reason"]) for row in rows] == [("BAR", None), ("bar", "unknown_series")]


def test_series_with_few_training_windows_is_unknown():
    few = [window(minute, sensor_id=2) for minute in range(MIN_WINDOWS - 1)]
    enough = [window(minute, sensor_id=3) for minute in range(MIN_WINDOWS)]
    assert baselines(frame(*few, *enough))["sensor_id"].to_list() == [3]


@pytest.mark.parametrize("mean", [None, float("nan"), float("inf")])
def test_window_without_a_finite_mean_cannot_be_judged(usual, mean):
    (row,) = judged(usual, window(mean=mean))
    assert (row["reason"], row["feature_level"]) == ("missing_values", None)


def test_single_reading_has_no_spread_and_is_judged(usual):
    (row,) = judged(usual, window(stddev=None, readings=1))
    assert (row["reason"], row["feature_spread"]) == (None, None)


def test_rounding_of_a_constant_sensor_is_no_event_but_a_step_is():
    constant = dict.fromkeys(("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last"), 0.1)
    usual = baselines(frame(*(window(minute, **constant, stddev=0.0) for minute in range(50))))
    rounded, stepped = judged(
        usual, window(0, **{**constant, "mean": 0.1 + 1e-16}), window(5, **{**constant, "mean": 0.2})
    )
    assert abs(rounded["feature_level"]) < 1e-6
    assert stepped["feature_level"] > 1000


def test_scores_do_not_depend_on_how_many_windows_are_judged_at_once():
    """To the last bit: polars makes the scale of the only series a constant, and divides by it in another way."""
    windows = [window(minute, mean=minute * 7919 % 101 / 7) for minute in range(200)]
    usual = baselines(frame(*windows))
    together = features(frame(*windows), usual)["feature_level"].to_list()
    assert together == [features(frame(one), usual)["feature_level"].item() for one in windows]


def test_scores_end_at_the_furthest(usual):
    (row,) = judged(usual, window(mean=1e308))
    assert row["feature_level"] == FURTHEST


def test_coarse_sensor_uses_its_mean_deviation():
    """More than half of the windows are equal, so the median deviation is 0."""
    usual = baselines(frame(*(window(minute, mean=20.0 if minute % 10 == 0 else 10.0) for minute in range(50))))
    assert usual["level_scale"].item() == pytest.approx(1.2533 * 1.0)


VALUES = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([float("nan"), float("inf")]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), VALUES, VALUES), max_size=12, unique_by=lambda w: w[0]), st.randoms())
def test_no_window_is_lost_and_order_does_not_matter(usual, values, random):
    windows = [window(minute, mean=mean, stddev=spread) for minute, mean, spread in values]
    shuffled = random.sample(windows, len(windows))
    empty = frame(window()).clear()
    one = features(frame(*windows) if windows else empty, usual)
    other = features(frame(*shuffled) if windows else empty, usual)
    assert one.select(*KEY, *FEATURE_COLUMNS, "reason").equals(other.select(*KEY, *FEATURE_COLUMNS, "reason"))
    assert one["window_start"].to_list() == sorted(w["window_start"] for w in windows)
