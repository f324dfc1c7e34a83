"""gold.anomaly_scores: the declaration and its function."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from assets.calculation import built_in
from assets.gold.anomaly_scores import anomaly_scores
from data_quality.contract import SET_LATER, apply_contract
from ml.isolation_forest import fit
from resources.model_store import StoredModel, Training
from tests.ml.windows import frame, simulated, window

sensor_windows_1m = built_in("sensor_windows_1m")
KNOWN = {"device_id": 1000, "sensor_id": 1}


@pytest.fixture(scope="module")
def model() -> StoredModel:
    found = fit(simulated(series=3, windows=300), trees=20, seed=0, false_alarm_rate=0.01)
    training = Training(77, "model-a", datetime(2026, 1, 1, tzinfo=UTC), 0, found.trained_rows, found.features)
    return StoredModel("sensor_windows", "20260101T000000Z-abc", found.forest, found.baselines, training)


def scored(model: StoredModel, windows: pl.DataFrame) -> pl.DataFrame:
    columns = [name for name in sensor_windows_1m.schema if name in windows.columns]
    assert anomaly_scores.function is not None
    rows: pl.DataFrame = anomaly_scores.function(windows.select(columns), model=model)
    return rows


def test_output_is_what_is_declared(model):
    rows = scored(model, simulated(series=3, windows=20, seed=1))
    assert dict(rows.schema) == {name: dtype for name, dtype in anomaly_scores.schema.items() if name not in SET_LATER}
    good, violations = apply_contract(
        anomaly_scores, rows, skew=timedelta(minutes=5), earliest=datetime(2000, 1, 1, tzinfo=UTC)
    )
    assert (good.height, violations.height) == (60, 0)


def test_score_is_traced_to_model_and_window(model):
    (row,) = scored(model, frame(window(**KNOWN, revision=2))).to_dicts()
    assert (row["model_id"], row["training_snapshot"], row["training_tag"]) == ("20260101T000000Z-abc", 77, "model-a")
    assert row["window_revision"] == 2
    assert row["window_end"] - row["window_start"] == timedelta(minutes=1)


def test_unknown_series_has_a_row_without_a_score(model):
    (row,) = scored(model, frame(window(sensor_id=99))).to_dicts()
    assert (row["score"], row["threshold"], row["is_anomaly"], row["reason"]) == (None, None, False, "unknown_series")


def test_step_is_an_anomaly_and_its_features_say_why(model):
    usual = simulated(series=3, windows=300).filter(pl.col("sensor_id") == 1).sort("window_start")[:1]
    moved = usual.with_columns(pl.col("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last") + 200)
    (calm,), (step,) = scored(model, usual).to_dicts(), scored(model, moved).to_dicts()
    assert (calm["is_anomaly"], step["is_anomaly"]) == (False, True)
    assert step["feature_level"] > 20
    assert step["feature_spread"] == calm["feature_spread"]


def test_previous_window_is_within_reach():
    """The engine reads input from one reach_ahead before a window: that is where the window before it starts."""
    assert anomaly_scores.window is not None and sensor_windows_1m.window is not None
    assert anomaly_scores.window.reach_ahead == anomaly_scores.window.size == sensor_windows_1m.window.size
    assert anomaly_scores.final_only


def test_series_is_that_of_the_windows():
    assert anomaly_scores.series == sensor_windows_1m.series
    assert anomaly_scores.key == sensor_windows_1m.key


def test_lineage_names_columns_that_exist():
    upstream = {f"{sensor_windows_1m.identifier}.{name}" for name in sensor_windows_1m.schema}
    named = {source for column in anomaly_scores.columns for source in column.lineage}
    assert named and named <= upstream
