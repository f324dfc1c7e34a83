"""The anomaly model: determinism, false alarms, what it finds, what is asked of it."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml import anomaly_model
from ml.anomaly_model import Model, detector, judge, restore, train
from ml.decision import VERDICT
from ml.policy import Policy
from ml.quantities import FEATURES, GROUP, KEY, START
from resources.errors import ConfigurationError
from resources.model_store import ModelRefusedError, StoredModel, Training
from tests.ml.windows import T0, frame, simulated, window

RATE = Policy().false_alarm_rate
OWN = {"device_id": 1000, "sensor_id": 1}


@pytest.fixture(scope="module")
def model() -> Model:
    return train(simulated(), trees=60, seed=7)


def share(rows: pl.DataFrame) -> float:
    """How many of the windows are anomalies."""
    return int(rows["is_anomaly"].sum()) / rows.height


def test_same_seed_gives_the_same_model_whatever_the_order(model: Model) -> None:
    again = train(simulated().sample(fraction=1, shuffle=True, seed=1), trees=60, seed=7)
    windows = simulated(series=3, windows=50, seed=5)
    assert again.baselines.equals(model.baselines)
    assert judge(again, windows).equals(judge(model, windows))
    assert (model.features, model.trained_rows) == (FEATURES, 12 * 800)


def test_other_seed_gives_other_scores(model: Model) -> None:
    windows = simulated(series=3, windows=50, seed=5)
    other = judge(train(simulated(), trees=60, seed=8), windows)
    assert not other["score"].equals(judge(model, windows)["score"])


def found_share(rows: pl.DataFrame) -> float:
    """How many of the faults have an anomaly; they begin at whole tens of minutes."""
    fault = pl.col(START).dt.epoch("s") // 600
    found = rows.filter("is_faulty").group_by("sensor_id", fault).agg(pl.col("is_anomaly").any())
    return int(found["is_anomaly"].sum()) / found.height


@pytest.mark.parametrize("is_known", [True, False])
def test_verdict_depends_on_the_windows_near_before_and_on_no_other(model: Model, is_known: bool) -> None:
    windows = simulated(series=5, windows=160, seed=6, fault=lambda random, n: 5.0)
    used = model if is_known else None
    whole = judge(used, windows)
    assert whole["is_alarm"].any()
    for minute in (0, 7, 64, 101, 159):
        at = T0 + timedelta(minutes=minute)
        near = windows.filter(pl.col(START).is_between(at - timedelta(minutes=62), at), device_id=1000)
        wanted = near.filter(pl.col(START) == at).select(*GROUP, START)
        one = judge(used, near, wanted=wanted)
        assert one.equals(whole.filter(pl.col(START) == at, device_id=1000))


def test_every_window_has_a_row(model: Model) -> None:
    rows = judge(model, frame(window(0, sensor_id=99), window(1, **OWN, mean=None), window(2, **OWN)))
    assert rows.height == 3
    by_reason = {row["reason"]: row for row in rows.to_dicts()}
    assert set(by_reason) == {"too_little_history", "missing_values", None}
    for reason in ("too_little_history", "missing_values"):
        row = by_reason[reason]
        assert (row["score"], row["method"], row["is_anomaly"], row["is_alarm"]) == (None, None, False, False)
    assert 0 < by_reason[None]["score"] <= 1


def test_devices_are_judged_alike_in_parts_of_any_size(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = simulated(windows=60, seed=3)
    whole = judge(model, windows)
    monkeypatch.setattr(anomaly_model, "_PART", 1)
    assert judge(model, windows).equals(whole)


@pytest.mark.parametrize("is_known", [True, False])
def test_no_windows_give_no_rows(model: Model, is_known: bool) -> None:
    rows = judge(model if is_known else None, frame(window()).clear())
    assert rows.is_empty() and set(VERDICT) <= set(rows.columns)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_false_alarms_on_unseen_windows_are_near_the_stated_rate(model: Model, seed: int) -> None:
    assert share(judge(model, simulated(seed=seed))) < 5 * RATE


@pytest.mark.parametrize("watched", [60, 100, 200])
@pytest.mark.parametrize("kind", ["rhythm", "walk"])
def test_false_alarms_after_little_history_are_near_the_stated_rate(kind: str, watched: int) -> None:
    """Nobody can tell from a part of a rhythm of 400 minutes, or of a random walk, how far it goes on."""
    windows = simulated(series=12, windows=watched + 240, seed=9)
    windows = drifting(windows) if kind == "walk" else windows
    cut = T0 + timedelta(minutes=watched)
    known = train(windows.filter(pl.col(START) < cut), trees=100, seed=0)
    allowed = 0.05 if (kind, watched) == ("walk", 60) else 5 * RATE
    assert share(judge(known, windows).filter(pl.col(START) >= cut)) < allowed


def test_faults_after_little_history_are_found() -> None:
    cut = T0 + timedelta(minutes=100)
    known = train(simulated(windows=100, seed=3), trees=60, seed=0)
    rows = judge(known, simulated(windows=600, seed=3, fault=lambda random, n: 12.0)).filter(pl.col(START) >= cut)
    assert found_share(rows) > 0.85


def test_silence_is_an_anomaly_of_the_first_window_after_it(model: Model) -> None:
    windows = simulated(series=4, windows=200, seed=5)
    gap = pl.col(START).is_between(T0 + timedelta(minutes=100), T0 + timedelta(minutes=129))
    rows = judge(model, windows.filter(~gap)).filter(pl.col(START) == T0 + timedelta(minutes=130))
    assert rows["is_anomaly"].to_list() == [True] * 4
    assert rows["top_feature"].to_list() == ["silence"] * 4


@pytest.fixture(scope="module")
def sparse() -> Model:
    return train(simulated(readings=2), trees=60, seed=7)


@pytest.mark.parametrize("readings", [5, 20, 120])
def test_sender_that_reports_more_often_is_no_anomaly(sparse: Model, readings: int) -> None:
    assert share(judge(sparse, simulated(series=8, windows=400, seed=1, readings=readings))) < 5 * RATE


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        pytest.param(lambda random, n: 8.0, 0.9, id="step"),
        pytest.param(lambda random, n: random.normal(0, 6, n), 0.6, id="noise"),
    ],
)
def test_faults_of_a_sender_that_reports_more_often_are_found(
    sparse: Model, fault: Callable[[np.random.Generator, int], Any], found: float
) -> None:
    rows = judge(sparse, simulated(series=8, windows=400, seed=2, fault=fault, readings=120))
    assert share(rows.filter("is_faulty")) > found
    assert found_share(rows) == 1


def test_drop_to_a_tenth_of_the_readings_is_found_even_if_more_than_were_learned(sparse: Model) -> None:
    windows = simulated(series=4, windows=120, seed=3, readings=120)
    dropped = pl.when(pl.col(START) >= T0 + timedelta(minutes=100)).then(12).otherwise("readings").alias("readings")
    rows = judge(sparse, windows.with_columns(dropped))
    first = rows.filter(pl.col(START).is_between(T0 + timedelta(minutes=100), T0 + timedelta(minutes=107)))
    assert share(first) == 1 and set(first["top_feature"]) == {"readings"}
    assert share(rows.filter(pl.col(START) < T0 + timedelta(minutes=100))) < 5 * RATE


@pytest.mark.parametrize("rate", [0.05, RATE, 1e-6])
def test_threshold_and_return_period_of_every_row_say_the_same(rate: float) -> None:
    """Whatever was labelled, and however short or faulty the training."""
    windows = simulated(series=6, windows=200, fault=lambda random, n: 30.0)
    policies = [Policy(match={"sensor_id": 1}, false_alarm_rate=rate / 2), Policy(false_alarm_rate=rate)]
    is_faulty = windows["is_faulty"]
    for false_alarms, excluded in ((None, None), (is_faulty, None), (None, is_faulty)):
        known = train(windows, trees=20, seed=0, false_alarms=false_alarms, excluded=excluded)
        rows = judge(known, windows, policies).filter(method="model")
        rarest = pl.when(pl.col("sensor_id") == 1).then(2 / rate).otherwise(1 / rate)
        is_above = pl.col("score") > pl.col("threshold")
        assert rows.select((is_above == (pl.col("return_period_windows") > rarest)).all()).item()


def test_sensor_that_sticks_is_found_within_minutes(model: Model) -> None:
    """Each goes on with the last reading of minute 99 for half an hour."""
    windows = simulated(series=8, windows=200, seed=5)
    begun = pl.col("last").filter(pl.col(START) == T0 + timedelta(minutes=99)).first().over("sensor_id")
    is_stuck = pl.col(START).is_between(T0 + timedelta(minutes=100), T0 + timedelta(minutes=129))
    names = ("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last")
    frozen = [pl.when(is_stuck).then(begun).otherwise(name).alias(name) for name in names]
    rows = judge(model, windows.with_columns(*frozen, pl.when(is_stuck).then(0.0).otherwise("stddev").alias("stddev")))
    late = rows.filter(pl.col(START).is_between(T0 + timedelta(minutes=106), T0 + timedelta(minutes=129)))
    assert share(late) == 1
    assert late.filter(top_feature="stuck").height > 0.9 * late.height


@pytest.mark.parametrize("dwell", [2, 20, 200])
def test_sensor_of_two_states_is_not_called_stuck(dwell: int) -> None:
    random = np.random.default_rng(dwell)
    parts = []
    for sensor in range(4):
        state = np.cumsum(random.random(2_000) < 1 / dwell) % 2 + sensor
        values = dict.fromkeys(("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last"))
        windows = (
            window(n, sensor_id=sensor, stddev=0.0, **{k: float(v) for k in values}) for n, v in enumerate(state)
        )
        parts.append(frame(*windows))
    rows = pl.concat(parts)
    known = train(rows.filter(pl.col(START) < T0 + timedelta(minutes=1_000)), trees=60, seed=0)
    called = judge(known, rows).filter(pl.col(START) >= T0 + timedelta(minutes=1_000), top_feature="stuck")
    assert called.height <= 5 * RATE * 4_000


def drifting(windows: pl.DataFrame) -> pl.DataFrame:
    random = np.random.default_rng(9)
    moved = ("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last")
    parts = []
    for part in windows.partition_by("sensor_id", maintain_order=True):
        walk = pl.Series(np.cumsum(random.normal(0, 0.3, part.height)))
        parts.append(part.with_columns(pl.col(moved) + walk))
    return pl.concat(parts)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        pytest.param(lambda random, n: 5.0, 0.9, id="step"),
        pytest.param(lambda random, n: random.normal(0, 3, n), 0.9, id="noise"),
        pytest.param(lambda random, n: (random.random(n) < 0.1) * 12.0, 0.6, id="spikes"),
    ],
)
def test_faults_are_found(model: Model, fault: Callable[[np.random.Generator, int], Any], found: float) -> None:
    rows = judge(model, simulated(seed=2, fault=fault))
    assert share(rows.filter("is_faulty")) > found
    # A fault of five windows lasts a few more in what is sustained.
    assert share(rows.filter(~pl.col("is_faulty"))) < 0.05


def test_fault_far_beyond_a_short_training_is_found() -> None:
    """Without made-up outlying windows a forest cannot tell how far out a window lies."""
    short = train(simulated(series=2, windows=80), trees=60, seed=0)
    rows = judge(short, simulated(series=2, seed=2, fault=lambda random, n: 30.0))
    assert found_share(rows) == 1


def test_series_that_no_model_knows_is_judged_by_its_own_last_windows() -> None:
    rows = judge(None, simulated(series=3, seed=2, fault=lambda random, n: 30.0))
    assert set(rows["method"].unique()) == {"robust_z", None}
    judged = rows.filter("is_faulty", pl.col("method").is_not_null())
    assert share(judged) > 0.6
    assert share(rows.filter(~pl.col("is_faulty"))) < 0.02


def test_labelled_windows_are_not_learned_from() -> None:
    clean, windows = simulated(series=2), simulated(series=2, fault=lambda random, n: 30.0)
    told = train(windows, trees=20, seed=0, excluded=windows["is_faulty"])
    untold = train(windows, trees=20, seed=0)
    assert told.trained_rows == clean.height - int(windows["is_faulty"].sum())
    assert (told.baselines["level_scale"] <= untold.baselines["level_scale"]).all()


def test_false_alarm_raises_the_threshold_of_its_series() -> None:
    windows = simulated(series=2, fault=lambda random, n: 6.0)
    told = train(windows, trees=20, seed=0, false_alarms=windows["is_faulty"])
    untold = train(windows, trees=20, seed=0)
    assert (judge(told, windows)["threshold"] > judge(untold, windows)["threshold"]).all()


def test_policy_of_a_series(model: Model) -> None:
    windows = simulated(seed=2, fault=lambda random, n: 5.0)
    plain = judge(model, windows)
    assert set(plain.filter("is_faulty", "is_anomaly")["direction"]) == {"above"}
    for changed in (
        Policy(direction="below"),
        Policy(minimum_deviation=1e6),
        Policy(features=("spread",)),
    ):
        rows = judge(model, windows, [changed])
        assert share(rows.filter("is_faulty")) < 0.1 * share(plain.filter("is_faulty"))
    other = judge(model, windows, [Policy(match={"sensor_id": 1}, direction="below")])
    quiet = other.filter("is_faulty").group_by("sensor_id").agg(pl.col("is_anomaly").mean()).sort("is_anomaly")
    assert quiet["sensor_id"][0] == 1 and quiet["is_anomaly"][0] < 0.1 < quiet["is_anomaly"][1]


def test_persistence_waits_and_cooldown_joins(model: Model) -> None:
    windows = simulated(seed=2, fault=lambda random, n: 5.0)
    at_once, patient = (judge(model, windows, [Policy(persistence=n)]) for n in (1, 3))
    assert patient.filter("is_anomaly").height < at_once.filter("is_anomaly").height
    assert 0 < at_once.filter("is_alarm").height <= 12 * 5 * 1.3
    each = judge(model, windows, [Policy(cooldown=0)])
    assert each["is_alarm"].equals(each["is_anomaly"])


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 windows of no series with at least 30 windows each"):
        train(frame(*(window(minute) for minute in range(3))), trees=5, seed=0)


def stored(model: Model, features: tuple[str, ...]) -> StoredModel:
    training = Training(5, "model-1", datetime(2026, 1, 1, tzinfo=UTC), 7, model.trained_rows, features)
    return StoredModel("sensor_windows", "m1", model.state, model.baselines, training)


def test_restored_model_judges_alike(model: Model) -> None:
    windows = simulated(series=2, windows=30, seed=4)
    assert judge(restore(stored(model, FEATURES)), windows).equals(judge(model, windows))


def test_model_of_other_features_is_refused(model: Model) -> None:
    with pytest.raises(ModelRefusedError, match=r"sensor_windows/m1: was trained on the features \['level'\]"):
        restore(stored(model, ("level",)))


def test_detector_of_ones_own_takes_the_place_of_the_forest() -> None:
    own = train(simulated(series=2), trees=1, seed=0, name="benchmarks.skab_norm")
    rows = judge(own, simulated(series=2, seed=2, fault=lambda random, n: 30.0))
    assert share(rows.filter("is_faulty")) > 0.95


@pytest.mark.parametrize(("name", "message"), [("no.such", "cannot be imported"), ("ml.policy", "no function 'fit'")])
def test_detector_that_is_none_is_told(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        detector(name)


def test_importing_the_model_imports_no_scikit_learn() -> None:
    code = "import sys, ml.anomaly_model; assert not {'sklearn', 'scipy', 'skops'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_key_is_the_order_of_the_verdicts(model: Model) -> None:
    rows = judge(model, simulated(series=3, windows=20).sample(fraction=1, shuffle=True, seed=0))
    assert rows.select(KEY).equals(rows.select(KEY).sort(KEY))
