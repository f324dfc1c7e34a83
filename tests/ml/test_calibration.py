"""What the scores of a series mean."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.calibration import TAIL, return_period, tails, threshold
from ml.quantities import Floats


def scores(false_alarm: float | None = None, **series: Sequence[float | None]) -> pl.DataFrame:
    rows = [
        {
            "site_id": 1,
            "device_id": 2,
            "sensor_id": 3,
            "unit": unit,
            "score": score,
            "is_false_alarm": bool(score == false_alarm),
        }
        for unit, values in series.items()
        for score in values
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def thresholds(found: pl.DataFrame, rate: float) -> dict[str, float]:
    return dict(zip(found["unit"], map(float, threshold(rate, *ends(found))), strict=True))


def ends(found: pl.DataFrame) -> list[Floats]:
    return [found[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in TAIL]


def normal(seed: int, count: int = 20_000) -> list[float]:
    return list(map(float, 0.3 + np.random.default_rng(seed).exponential(0.02, count)))


@pytest.mark.parametrize("rate", [0.01, 0.0003])
def test_threshold_is_exceeded_at_the_stated_rate(rate: float) -> None:
    (limit,) = thresholds(tails(scores(a=normal(0))), rate).values()
    unseen = np.array(normal(1, 200_000))
    assert rate / 3 < (unseen > limit).mean() < rate * 3


def test_few_scores_lean_on_the_tails_of_all() -> None:
    lively = [0.5 + 0.1 * value for value in normal(2) if value]
    found = thresholds(tails(scores(brief=normal(0, 50), long=normal(1), other=lively)), 0.001)
    assert found["long"] < found["brief"] < found["other"]


def test_return_period_is_one_over_the_rate_at_the_threshold() -> None:
    tail = ends(tails(scores(a=normal(0))))
    assert return_period(threshold(0.001, *tail), *tail).item() == pytest.approx(1000)


@settings(max_examples=300)
@given(
    st.floats(1e-12, 1, exclude_max=True),
    st.floats(0, 1),
    st.floats(1e-6, 1),
    st.floats(0, 1) | st.just(float("nan")),
    st.floats(0, 1),
    st.integers(-3, 3),
)
def test_threshold_and_return_period_say_the_same(
    rate: float, start: float, scale: float, floor: float, score: float, ulps: int
) -> None:
    """Of any score, and of those that are the nearest to the threshold."""
    tail = [np.array([value]) for value in (start, scale, floor)]
    limit = threshold(rate, *tail)
    near = limit
    for _ in range(abs(ulps)):
        near = np.nextafter(near, np.sign(ulps) * np.inf)
    for one in (np.array([score]), near, tail[2]):
        assert bool(one > limit) == bool(return_period(one, *tail) > 1 / rate)


def test_series_with_faults_that_nobody_labelled_leave_the_others_their_thresholds() -> None:
    usual = {f"s{n}": normal(n, 400) for n in range(9)}
    faulty = [*normal(9, 360), *np.random.default_rng(0).uniform(0.6, 0.9, 40)]
    before, after = (thresholds(tails(scores(None, **usual, x=last)), 0.0005) for last in (normal(9, 400), faulty))
    assert all(after[name] == pytest.approx(before[name], abs=0.005) for name in usual)


def test_no_threshold_is_below_a_false_alarm() -> None:
    values = [*normal(0), 0.9]
    assert list(thresholds(tails(scores(false_alarm=0.9, a=values)), 0.01).values()) == [0.9]


def test_tail_of_nothing_but_faults_ends_at_the_ceiling() -> None:
    faulty = list(map(float, np.random.default_rng(0).uniform(0.3, 0.9, 400)))
    found = tails(scores(a=faulty, b=faulty), 0.95)
    assert thresholds(found, 1 / 2000)["a"] == pytest.approx(0.95)
    assert thresholds(found, 1 / 20000)["a"] > 0.95


def test_windows_without_a_score_do_not_count() -> None:
    values = normal(0, 200)
    assert tails(scores(a=values)).equals(tails(scores(a=[*values, None, None])))


def test_return_period_of_a_row_is_the_same_in_any_batch() -> None:
    values, tail = np.linspace(0, 1, 1000), [np.full(1000, end) for end in (0.4, 0.05, 0.2)]
    alone = [return_period(values[n : n + 1], *(end[:1] for end in tail))[0] for n in range(1000)]
    assert alone == return_period(values, *tail).tolist()
