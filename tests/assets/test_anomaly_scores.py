"""gold.anomaly_scores: the declaration and its function."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from assets.calculation import built_in
from assets.gold.anomaly_scores import anomaly_scores
from data_quality.contract import SET_LATER, apply_contract
from ml.anomaly_model import train
from ml.policy import HISTORY
from ml.quantities import REACH
from resources.model_store import StoredModel, Training
from tests.ml.windows import T0, frame, simulated, window

sensor_windows_1m = built_in("sensor_windows_1m")
KNOWN = {"device_id": 1000, "sensor_id": 1}


@pytest.fixture(scope="module")
def model() -> StoredModel:
    found = train(simulated(series=3, windows=300), trees=20, seed=0)
    training = Training(77, "model-a", datetime(2026, 1, 1, tzinfo=UTC), 0, found.trained_rows, found.features)
    return StoredModel("sensor_windows", "20260101T000000Z-abc", found.state, found.baselines, training, "f00d")


def scored(model: StoredModel | None, windows: pl.DataFrame, **options: pl.DataFrame) -> pl.DataFrame:
    columns = [name for name in sensor_windows_1m.schema if name in windows.columns]
    assert anomaly_scores.function is not None
    rows: pl.DataFrame = anomaly_scores.function(windows.select(columns), model=model, **options)
    return rows


def test_output_is_what_is_declared(model: StoredModel) -> None:
    rows = scored(model, simulated(series=3, windows=20, seed=1))
    assert dict(rows.schema) == {name: dtype for name, dtype in anomaly_scores.schema.items() if name not in SET_LATER}
    good, violations = apply_contract(
        anomaly_scores, rows, skew=timedelta(minutes=5), earliest=datetime(2000, 1, 1, tzinfo=UTC)
    )
    assert (good.height, violations.height) == (60, 0)


def test_score_is_traced_to_model_and_window(model: StoredModel) -> None:
    (row,) = scored(model, frame(window(**KNOWN, revision=2))).to_dicts()
    assert (row["model_id"], row["training_snapshot"], row["training_tag"]) == ("20260101T000000Z-abc", 77, "model-a")
    assert (row["window_revision"], row["model_sha256"], row["method"]) == (2, "f00d", "model")
    assert row["window_end"] - row["window_start"] == timedelta(minutes=1)


def test_series_without_history_has_a_row_without_a_score(model: StoredModel) -> None:
    (row,) = scored(model, frame(window(sensor_id=99))).to_dicts()
    assert (row["score"], row["threshold"], row["is_anomaly"], row["reason"]) == (
        None,
        None,
        False,
        "too_little_history",
    )


def test_step_is_an_anomaly_and_its_features_say_why(model: StoredModel) -> None:
    usual = simulated(series=3, windows=300).filter(pl.col("sensor_id") == 1).sort("window_start")[:1]
    moved = usual.with_columns(pl.col("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last") + 200)
    (calm,), (step,) = scored(model, usual).to_dicts(), scored(model, moved).to_dicts()
    assert (calm["is_anomaly"], step["is_anomaly"]) == (False, True)
    assert step["feature_level"] > 20
    assert step["feature_spread"] == calm["feature_spread"]
    assert (step["is_alarm"], step["direction"]) == (True, "above")
    assert step["expected_low"] < calm["expected_high"] < step["expected_high"] + 1
    added = json.loads(step["contributions"])
    assert max(added, key=added.__getitem__) == step["top_feature"]
    assert calm["top_feature"] is None and calm["contributions"] is None


def test_only_wanted_windows_are_judged(model: StoredModel) -> None:
    windows = simulated(series=3, windows=40, seed=1)
    wanted = windows.select("site_id", "device_id", "window_start").filter(pl.col("window_start") == T0)
    rows = scored(model, windows, wanted=wanted)
    assert rows["window_start"].to_list() == [T0] * 3


def test_without_a_model_a_series_is_judged_by_its_own_last_windows() -> None:
    rows = scored(None, simulated(series=1, windows=40))
    assert rows["method"].to_list() == [None] * 10 + ["robust_z"] * 30
    assert rows["model_id"].null_count() == 40


def test_windows_that_a_verdict_looks_back_at_are_within_reach() -> None:
    """The engine reads input from one reach_ahead before a window."""
    assert anomaly_scores.window is not None and sensor_windows_1m.window is not None
    assert anomaly_scores.window.size == sensor_windows_1m.window.size
    assert anomaly_scores.window.reach_ahead == (REACH + HISTORY) * sensor_windows_1m.window.size
    assert anomaly_scores.final_only


def test_device_is_judged_together() -> None:
    assert anomaly_scores.series == ("site_id", "device_id")
    assert set(anomaly_scores.series) < set(sensor_windows_1m.series)
    assert anomaly_scores.key == sensor_windows_1m.key


def test_lineage_names_columns_that_exist() -> None:
    upstream = {f"{sensor_windows_1m.identifier}.{name}" for name in sensor_windows_1m.schema}
    named = {source for column in anomaly_scores.columns for source in column.lineage}
    assert named and named <= upstream
