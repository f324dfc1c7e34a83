"""The z-scores that the anomaly model sees."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.baselines import MIN_WINDOWS, learn
from ml.features import FURTHEST, z_scores
from ml.quantities import FEATURES, KEY, REACH, SERIES, SPAN, ordered
from ml.sample_size import OF_READINGS, expected
from tests.ml.windows import READINGS, frame, window

LEVELS = [10.0 + (minute * 7 % 5) for minute in range(200)]
Row = Mapping[str, Any]


def learned(windows: pl.DataFrame) -> pl.DataFrame:
    return learn(ordered(windows), np.ones(windows.height, bool))


@pytest.fixture(scope="module")
def usual() -> pl.DataFrame:
    """Means 10 to 14 in turn: median 12, deviations of 1 and 2."""
    return learned(frame(*(window(minute, mean=mean) for minute, mean in enumerate(LEVELS))))


def judged(usual: pl.DataFrame, *windows: dict[str, Any]) -> list[dict[str, Any]]:
    rows = ordered(frame(*windows))
    scores, known = z_scores(rows, usual)
    named = pl.DataFrame({name: scores[:, i] for i, name in enumerate(FEATURES)}, nan_to_null=True)
    return (
        rows.rows.drop(FEATURES, strict=False)
        .hstack(named)
        .with_columns(pl.Series("is_known", known.is_known))
        .to_dicts()
    )


def test_baseline_is_median_and_deviation_and_wander(usual: pl.DataFrame) -> None:
    (row,) = usual.to_dicts()
    assert {name: row[name] for name in SERIES} == {"site_id": 101, "device_id": 1001, "sensor_id": 1, "unit": "BAR"}
    assert (row["windows"], row["level_median"], row["level_wander"]) == (200, 12.0, pytest.approx(0.0, abs=0.1))
    assert 1.4826 <= row["level_scale"] < 1.7


def test_level_is_distance_from_the_median_in_scales(usual: pl.DataFrame) -> None:
    (row,) = judged(usual, window(mean=12 + 3 * usual["level_scale"].item()))
    assert row["level"] == pytest.approx(3.0)


def test_sensor_that_wanders_is_given_room() -> None:
    still = learned(frame(*(window(m, mean=10.0 + m % 2) for m in range(200))))
    drifting = learned(frame(*(window(m, mean=10.0 + m % 2 + m / 20) for m in range(200))))
    assert drifting["level_scale"].item() > 5 * still["level_scale"].item()


def test_each_feature_reads_its_quantity() -> None:
    noisy = [
        window(m, mean=m % 3, stddev=m % 4, first=m % 5, minimum=m % 6, maximum=20 + m % 7, p99=15 + m % 8)
        for m in range(80)
    ]
    training = learned(frame(*noisy))
    calm = window(1, mean=1, stddev=1.5, first=2, minimum=2.5, maximum=23, p99=18.5)
    changed: dict[str, dict[str, Any]] = {
        "spread": {"stddev": 90.0},
        "slope": {"last": 90.0},
        "range": {"maximum": 90.0},
        "tail": {"p99": 90.0},
    }
    (before,) = judged(training, calm)
    for name, values in changed.items():
        (after,) = judged(training, {**calm, **values})
        assert {feature for feature in FEATURES if after[feature] != before[feature]} == {name}


def readings_of(usual: pl.DataFrame, *counts: int) -> list[float]:
    return [row["readings"] for row in judged(usual, *(window(300 + m, readings=n) for m, n in enumerate(counts)))]


def test_readings_tells_fewer_than_usual_only(usual: pl.DataFrame) -> None:
    fewer = (np.log1p(2) - np.log1p(READINGS)) / 0.1
    assert readings_of(usual, READINGS, 90, 2) == pytest.approx([0, 0, fewer])


def test_readings_are_held_to_what_became_usual(usual: pl.DataFrame) -> None:
    fewer = (np.log1p(25) - np.log1p(250)) / 0.1
    assert readings_of(usual, *[250] * SPAN, 25)[-1] == pytest.approx(fewer)
    assert readings_of(usual, *[250] * 2, *[25] * SPAN)[-1] == 0


@pytest.mark.parametrize("name", OF_READINGS)
def test_quantity_of_more_readings_counts_as_far_as_it_is_wider_than_they_make_it(name: str) -> None:
    columns = {"spread": "stddev", "slope": "last", "range": "maximum", "tail": "p99"}
    base = {"minimum": 0.0, "first": 0.0, "p50": 0.0}
    rows = [window(m, readings=2, **base, **{columns[name]: 10.0 + m % 3}) for m in range(90)]
    training = learned(frame(*rows))
    wider = expected(name, np.array([120.0])) / expected(name, np.array([2.0]))

    def z(value: float) -> float:
        (row,) = judged(training, window(300, readings=120, **base, **{columns[name]: value}))
        return float(row[name])

    assert [z(11.0), z(11.0 * wider.item())] == pytest.approx([0, 0])
    assert z(8.0) < -1 and z(14.0 * wider.item()) > 1


@pytest.mark.parametrize(("now", "then"), [(1, 20), (20, 1)])
def test_one_reading_tells_nothing_of_what_several_do(now: int, then: int) -> None:
    training = learned(frame(*(window(m, readings=then) for m in range(80))))
    (row,) = judged(training, window(100, readings=now))
    assert [row[name] for name in OF_READINGS] == [None] * len(OF_READINGS)


def test_expected_quantities_are_those_of_normal_readings() -> None:
    random = np.random.default_rng(0)
    for count in (2, 5, 25, 120):
        drawn = random.normal(size=(20_000, count))
        p50, p99 = np.quantile(drawn, (0.5, 0.99), axis=1)
        seen = {"spread": drawn.std(axis=1, ddof=1), "range": np.ptp(drawn, axis=1), "tail": p99 - p50}
        for name, values in seen.items():
            assert expected(name, np.array([float(count)])) == pytest.approx(values.mean(), rel=0.06)


def test_change_compares_with_the_window_directly_before(usual: pl.DataFrame) -> None:
    rows = judged(usual, window(0, mean=12.0), window(1, mean=13.0), window(3, mean=12.0))
    assert [row["change"] is None for row in rows] == [True, False, True]


def test_change_does_not_cross_series(usual: pl.DataFrame) -> None:
    rows = judged(usual, window(0, sensor_id=0), window(1, sensor_id=1))
    assert [row["change"] for row in rows] == [None, None]


def test_silence_counts_the_windows_that_are_missing(usual: pl.DataFrame) -> None:
    rows = judged(usual, *(window(minute) for minute in (300, 301, 309)))
    assert [row["silence"] for row in rows] == pytest.approx([2 * SPAN, 0, 2 * 7])


def at(minute: int, value: float | None, mean: float | None = None) -> dict[str, Any]:
    """A window whose readings are all equal, or one without minimum and maximum."""
    return window(minute, mean=value if mean is None else mean, minimum=value, maximum=value, last=value)


def test_stuck_counts_the_windows_that_bring_no_other_value(usual: pl.DataFrame) -> None:
    same = [at(300 + minute, 12.0) for minute in range(4)]
    rows = judged(usual, *same, window(304, last=11.0), at(305, 12.0), at(306, 13.0), at(307, 13.0), at(309, 13.0))
    assert [row["stuck"] for row in rows] == [0, 2, 4, 6, 0, 0, 0, 2, 0]


def test_stuck_follows_the_mean_where_there_is_no_minimum(usual: pl.DataFrame) -> None:
    rows = judged(usual, *(at(300 + minute, None, mean) for minute, mean in enumerate((12.0, 12.0, 12.0, 11.0))))
    assert [row["stuck"] for row in rows] == [0, 2, 4, 0]


def test_stuck_does_not_cross_series_and_ends_within_reach(usual: pl.DataFrame) -> None:
    other = {**at(299, 12.0), "sensor_id": 0}
    rows = judged(usual, other, *(at(300 + minute, 12.0) for minute in range(REACH + 10)))[1:]
    assert (rows[0]["stuck"], rows[REACH]["stuck"], rows[-1]["stuck"]) == (0, 2 * REACH, 2 * REACH)


def test_stuck_is_judged_by_what_is_usual() -> None:
    """A constant sensor that moves is not the less stuck for it, and one that moves seldom may stand still."""
    constant = learned(frame(*(at(minute, 12.0) for minute in range(200))))
    seldom = learned(frame(*(at(minute, 12.0 + minute // 20 % 2) for minute in range(400))))
    still = [at(500 + minute, 12.0) for minute in range(20)]
    for usual in (constant, seldom):
        rows = judged(usual, *still, at(520, 13.0))
        assert all(0 <= row["stuck"] < 3 for row in rows)


def test_first_window_ever_follows_no_silence(usual: pl.DataFrame) -> None:
    (row,) = judged(usual, window(0))
    assert row["silence"] is None


def test_sustained_grows_while_a_step_lasts_and_ends_soon_after(usual: pl.DataFrame) -> None:
    means = [LEVELS[m] + (6.0 if 20 <= m < 40 else 0.0) for m in range(60)]
    rows = judged(usual, *(window(m, mean=mean) for m, mean in enumerate(means)))
    sustained = [row["sustained"] for row in rows]
    assert max(sustained[36:40]) > 5 * max(abs(s) for s in sustained[:20])
    assert abs(sustained[50]) < 1.5


def test_residual_is_what_the_other_sensors_do_not_tell() -> None:
    def device(minute: int, moved: float = 0.0) -> list[dict[str, Any]]:
        tide = 3 * np.sin(minute / 9)
        own = [((minute * 7 + sensor * 3) % 5 - 2) / 10 for sensor in (1, 2, 3)]
        return [
            window(minute, sensor_id=s, mean=10 + tide + own[s - 1] + (moved if s == 1 else 0.0)) for s in (1, 2, 3)
        ]

    training = learned(frame(*(row for m in range(400) for row in device(m))))
    together = judged(training, *(row for m in range(400, 430) for row in device(m)))
    apart = judged(training, *(row for m in range(400, 430) for row in device(m, moved=2.5)))
    assert max(abs(row["residual"]) for row in together) < 3
    last = [row for row in apart if row["sensor_id"] == 1][-1]
    assert last["residual"] > 2 * abs(last["level"])


def test_hour_of_the_day_is_learned_from_several_days() -> None:
    nightly = [window(m, mean=(50.0 if m // 60 % 24 == 2 else 10.0) + m // 10 % 5) for m in range(0, 6 * 1440, 10)]
    usual = learned(frame(*nightly))
    night, day = judged(usual, window(7 * 1440 + 120, mean=52.0), window(7 * 1440 + 300, mean=52.0))
    assert abs(night["level"]) < 2
    assert day["level"] > 8


def test_series_with_few_training_windows_is_unknown() -> None:
    few = [window(minute, sensor_id=2) for minute in range(MIN_WINDOWS - 1)]
    enough = [window(minute, sensor_id=3) for minute in range(MIN_WINDOWS)]
    usual = learned(frame(*few, *enough))
    assert usual["sensor_id"].to_list() == [3]
    assert [row["is_known"] for row in judged(usual, few[0], enough[0])] == [False, True]


@pytest.mark.parametrize("mean", [None, float("nan"), float("inf")])
def test_window_without_a_finite_mean_has_no_features(usual: pl.DataFrame, mean: float | None) -> None:
    (row,) = judged(usual, window(mean=mean))
    assert {row[name] for name in FEATURES} == {None}


def test_rounding_of_a_constant_sensor_is_no_event_but_a_step_is() -> None:
    constant = dict.fromkeys(("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last"), 0.1)
    usual = learned(frame(*(window(minute, **constant, stddev=0.0) for minute in range(50))))
    (rounded,) = judged(usual, window(0, **{**constant, "mean": 0.1 + 1e-16}))
    (stepped,) = judged(usual, window(5, **{**constant, "mean": 0.2}))
    assert abs(rounded["level"]) < 1e-6
    assert stepped["level"] > 1000


def test_scores_end_at_the_furthest(usual: pl.DataFrame) -> None:
    (row,) = judged(usual, window(mean=1e308))
    assert row["level"] == FURTHEST


def test_coarse_sensor_is_judged_by_its_steps() -> None:
    """More than half of the windows are equal, so the median deviation is 0."""
    usual = learned(frame(*(window(minute, mean=20.0 if minute % 10 == 0 else 10.0) for minute in range(400))))
    (row,) = judged(usual, window(mean=20.0))
    assert 1 < row["level"] < 6


VALUES = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([float("nan"), float("inf")]))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 20), VALUES, VALUES), max_size=12, unique_by=lambda w: w[0]), st.randoms())
def test_no_window_is_lost_and_order_does_not_matter(usual: pl.DataFrame, values: Any, random: Any) -> None:
    windows = [window(minute, mean=mean, stddev=spread) for minute, mean, spread in values]
    empty = frame(window()).clear()
    one, other = (ordered(frame(*w) if w else empty) for w in (windows, random.sample(windows, len(windows))))
    assert one.rows.select(KEY).equals(other.rows.select(KEY))
    assert one.rows["window_start"].to_list() == sorted(w["window_start"] for w in windows)
    np.testing.assert_array_equal(z_scores(one, usual)[0], z_scores(other, usual)[0])
