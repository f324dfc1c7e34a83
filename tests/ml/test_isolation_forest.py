"""The anomaly model: determinism, false alarms, what it finds."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ml.features import FEATURES, KEY
from ml.isolation_forest import INPUTS, Model, fit, restore, score
from resources.model_store import ModelRefusedError, StoredModel, Training
from tests.ml.windows import frame, simulated, window

RATE = 0.005


@pytest.fixture(scope="module")
def model() -> Model:
    return fit(simulated(), trees=60, seed=7, false_alarm_rate=RATE)


def test_same_seed_gives_the_same_model_whatever_the_order(model):
    again = fit(simulated().sample(fraction=1, shuffle=True, seed=1), trees=60, seed=7, false_alarm_rate=RATE)
    windows = simulated(series=3, windows=50, seed=5)
    assert again.baselines.equals(model.baselines)
    assert score(again, windows).equals(score(model, windows))
    assert (model.features, model.trained_rows) == (INPUTS, 12 * 800)


def test_other_seed_gives_other_scores(model):
    other = fit(simulated(), trees=60, seed=8, false_alarm_rate=RATE)
    windows = simulated(series=3, windows=50, seed=5)
    assert not score(other, windows)["score"].equals(score(model, windows)["score"])


def test_score_of_a_window_does_not_depend_on_the_others(model):
    windows = simulated(series=3, windows=40, seed=6)
    whole = score(model, windows)
    for start in (0, 7, 38):
        pair = windows.sort(KEY)[start : start + 2]
        second = score(model, pair)[1:]
        assert second.equals(whole.join(second.select(KEY), on=KEY, how="semi"))


def test_every_window_has_a_row(model):
    own = {"device_id": 1000, "sensor_id": 1}
    rows = score(model, frame(window(0, sensor_id=99), window(1, **own, mean=None), window(2, **own)))
    assert rows.height == 3
    by_reason = {row["reason"]: row for row in rows.to_dicts()}
    assert set(by_reason) == {"unknown_series", "missing_values", None}
    for reason in ("unknown_series", "missing_values"):
        assert (by_reason[reason]["score"], by_reason[reason]["is_anomaly"]) == (None, False)
    assert by_reason["unknown_series"]["threshold"] is None
    assert 0 < by_reason[None]["score"] <= 1


def test_no_windows_give_no_rows(model):
    assert score(model, frame(window()).clear()).is_empty()


def test_false_alarms_on_unseen_windows_are_near_the_asked_rate(model):
    assert score(model, simulated(seed=1))["is_anomaly"].mean() < 3 * RATE


@pytest.mark.parametrize(
    ("name", "fault", "found"),
    [
        ("step", lambda random, n: 5.0, 0.8),
        ("noise", lambda random, n: random.normal(0, 3, n), 0.9),
        ("spikes", lambda random, n: (random.random(n) < 0.1) * 12.0, 0.6),
    ],
)
def test_faults_are_found(model, name, fault, found):
    rows = score(model, simulated(seed=2, fault=fault))
    assert rows.filter("is_faulty")["is_anomaly"].mean() > found
    # The window after a fault differs from the one before it, too.
    assert rows.filter(~pl.col("is_faulty"))["is_anomaly"].mean() < 0.05


def test_fault_far_beyond_a_short_training_is_found():
    """Without made-up outlying windows a forest cannot tell how far out a window lies."""
    short = fit(simulated(series=2, windows=80), trees=60, seed=0, false_alarm_rate=0.001)
    rows = score(short, simulated(series=2, seed=2, fault=lambda random, n: 30.0))
    assert rows.filter("is_faulty")["is_anomaly"].mean() > 0.95


def test_false_alarm_rate_moves_the_threshold_and_not_the_score(model):
    strict = fit(simulated(), trees=60, seed=7, false_alarm_rate=RATE / 5)
    windows = simulated(series=2, windows=50, seed=3)
    one, other = score(model, windows), score(strict, windows)
    assert one["score"].equals(other["score"])
    assert (other["threshold"] > one["threshold"]).any()


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(ValueError, match="3 windows of no series with at least 30 windows each"):
        fit(frame(*(window(minute) for minute in range(3))), trees=5, seed=0, false_alarm_rate=0.1)


def stored(model: Model, features: tuple[str, ...]) -> StoredModel:
    training = Training(5, "model-1", datetime(2026, 1, 1, tzinfo=UTC), 7, model.trained_rows, features)
    return StoredModel("sensor_windows", "m1", model.forest, model.baselines, training)


def test_restored_model_scores_alike(model):
    windows = simulated(series=2, windows=30, seed=4)
    assert score(restore(stored(model, INPUTS)), windows).equals(score(model, windows))


def test_model_of_other_features_is_refused(model):
    with pytest.raises(ModelRefusedError, match=r"sensor_windows/m1: was trained on the features \['level'"):
        restore(stored(model, FEATURES))


def test_importing_the_model_imports_no_scikit_learn():
    code = "import sys, ml.isolation_forest; assert not {'sklearn', 'scipy', 'skops'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def skab() -> pl.DataFrame:
    """10-second windows of the SKAB test bench; the first 400 s of each experiment are its normal state."""
    folder = os.environ.get("SECCHI_TEST_DATA")
    if not folder or not (Path(folder) / "skab").is_dir():
        pytest.skip("SECCHI_TEST_DATA names no folder with skab/")
    return pl.concat([_experiment(n, p) for n, p in enumerate(sorted((Path(folder) / "skab").glob("[ov]*.csv")))])


def _experiment(number: int, path: Path) -> pl.DataFrame:
    readings = pl.read_csv(path, separator=";", try_parse_dates=True).with_columns(
        pl.col("datetime").cast(pl.Datetime("us", "UTC"))
    )
    value = pl.col("value")
    windows = (
        readings.unpivot(index=["datetime", "anomaly"], on=readings.columns[1:9], variable_name="unit")
        .sort("unit", "datetime")
        .group_by("unit", window_start=pl.col("datetime").dt.truncate("10s"), maintain_order=True)
        .agg(
            mean=value.mean(),
            stddev=value.std(),
            minimum=value.min(),
            maximum=value.max(),
            p50=value.quantile(0.5),
            p99=value.quantile(0.99),
            first=value.first(),
            last=value.last(),
            is_faulty=pl.col("anomaly").max() > 0,
        )
    )
    return windows.with_columns(
        site_id=pl.lit(number),
        device_id=pl.lit(1),
        sensor_id=pl.lit(1),
        window_end=pl.col("window_start") + pl.duration(seconds=10),
        is_training=pl.col("window_start") < readings["datetime"][400],
    )


def test_faults_of_the_skab_bench_score_higher_than_its_normal_state():
    windows = skab()
    model = fit(windows.filter("is_training"), trees=100, seed=0, false_alarm_rate=0.01)
    rows = score(model, windows).filter(~pl.col("is_training"))
    assert rows["score"].null_count() == 0
    bench = rows.group_by("site_id", "window_start").agg(pl.col("score").max(), pl.col("is_faulty").first())
    ranks = bench["score"].rank()
    faulty = bench["is_faulty"]
    n, m = faulty.sum(), (~faulty).sum()
    area_under_curve = (ranks.filter(faulty).sum() - n * (n + 1) / 2) / (n * m)
    assert area_under_curve > 0.7
