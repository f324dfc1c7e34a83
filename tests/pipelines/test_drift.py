"""The check for drift: fires on windows unlike those of the training, asks for another one, once."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from benchmarks.ml import SCORES, commit_windows
from pipelines.automation import first_model_sensor
from pipelines.context import Context
from pipelines.drift import DRIFT, Drift, check_drift, drift_checks
from pipelines.gold_step import run_gold
from pipelines.micro_batch_run import asset_key
from pipelines.training import is_asked_for, train
from tests.ml.windows import MINUTE, T0, simulated
from tests.pipelines.test_backtesting import HIGH, WINDOWS, lake

CUT = T0 + WINDOWS // 2 * MINUTE
VALUES = ("mean", "minimum", "maximum", "p50", "p95", "p99", "first", "last")


def judged(folder: Path, shift: float, windows: int = WINDOWS) -> Context:
    """A model of the first half of the windows, and scores of the second, moved by some of its deviations."""
    rows = simulated(series=8, windows=windows)
    later = pl.col("window_start") >= CUT
    context = lake(folder, rows.filter(~later))
    train(context)
    moved = [pl.col(name) + shift * pl.col("stddev") for name in VALUES]
    commit_windows(context, rows.filter(later).with_columns(moved).drop("is_faulty"), part=2)
    while run_gold(context, context.tables[SCORES]).did_work:
        pass
    context.clock = lambda: HIGH + timedelta(days=2)
    return context


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def check(context: Context) -> Drift:
    found = check_drift(context, context.tables[SCORES])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return judged(tmp_path_factory.mktemp("shifted") / "lake", shift=1.0)


def test_same_distribution_is_no_drift(tmp_path: Path) -> None:
    context = judged(tmp_path, shift=0.0)
    found = check(context)
    assert (found.windows, found.moved, found.is_asked) == (8 * WINDOWS // 2, [], False)
    assert 0 < max(found.stability.values()) < 0.1
    assert not is_asked_for(context)


def test_too_few_windows_tell_nothing(tmp_path: Path) -> None:
    found = check(judged(tmp_path, shift=9.0, windows=WINDOWS // 2 + 100))
    assert (found.moved, found.stability) == ([], {})


def test_shift_is_told_in_the_ui_and_asks_for_one_training(shifted: Context, instance: dg.DagsterInstance) -> None:
    config = shifted.config
    sensor = first_model_sensor(config)
    assert isinstance(sensor(dg.build_sensor_context(instance)), dg.SkipReason)
    checks = drift_checks(config, shifted.tables)
    job = dg.Definitions(
        asset_checks=[checks], jobs=[dg.define_asset_job("chosen", dg.AssetSelection.all_asset_checks())]
    ).resolve_job_def("chosen")
    (told,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert (told.asset_key, told.check_name, told.passed) == (asset_key(SCORES), DRIFT, False)
    metadata = {name: value.value for name, value in told.metadata.items()}
    assert metadata["asked_for_training"] is True and "level" in str(metadata["moved"])
    assert float(str(metadata["stability_level"])) > 0.25 and float(str(metadata["stability_spread"])) < 0.1
    assert told.description is not None and "are not like those of the training: " in told.description
    again = check(shifted)
    assert again.moved and not again.is_asked  # the request waits
    asked = shifted.lakehouse.read(shifted.tables["ops.requests"].stored)
    (row,) = asked.filter(kind="training").to_dicts()
    assert row["table_name"] == "ml.sensor_window_model" and "level" in json.loads(row["selection"])["reason"]
    assert isinstance(sensor(dg.build_sensor_context(instance)), dg.RunRequest)
    shifted.clock = lambda: row["requested_at"] + timedelta(minutes=1)
    train(shifted)
    assert not is_asked_for(shifted)
    assert isinstance(sensor(dg.build_sensor_context(instance)), dg.SkipReason)


def test_without_a_model_there_is_nothing_to_compare(tmp_path: Path) -> None:
    context = lake(tmp_path, simulated(series=1, windows=40))
    assert check_drift(context, context.tables[SCORES]) is None
