"""What the scores of a series mean."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from ml.calibration import TAIL, return_period, tails, threshold


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
    limits = found.with_columns(excess_ceiling=pl.lit(0.99), threshold=pl.lit(0.0))
    return dict(limits.select("unit", threshold(pl.lit(rate))).rows())


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
    tail = tails(scores(a=normal(0))).with_columns(excess_ceiling=pl.lit(0.99))
    at = tail.select(threshold(pl.lit(0.001))).to_series().to_numpy()
    assert return_period(at, *(tail[name].to_numpy() for name in TAIL[:2])).item() == pytest.approx(1000)


def test_no_threshold_is_below_a_false_alarm() -> None:
    values = [*normal(0), 0.9]
    assert list(thresholds(tails(scores(false_alarm=0.9, a=values)), 0.01).values()) == [0.9]


def test_windows_without_a_score_do_not_count() -> None:
    values = normal(0, 200)
    assert tails(scores(a=values)).equals(tails(scores(a=[*values, None, None])))


def test_return_period_of_a_row_is_the_same_in_any_batch() -> None:
    values, starts, scales = np.linspace(0, 1, 1000), np.full(1000, 0.4), np.full(1000, 0.05)
    alone = [return_period(values[n : n + 1], starts[:1], scales[:1])[0] for n in range(1000)]
    assert alone == return_period(values, starts, scales).tolist()
