"""Training: what it learns from, the snapshot that it keeps, and that the scores can be computed with its model."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.table import Table
from pipelines.cli import main
from pipelines.explaining import explain
from pipelines.maintenance import expire, maintain
from pipelines.readiness import is_ready, train_if_needed, why_untrained
from pipelines.settings.ml import ModelConfig
from pipelines.training import (
    MODEL,
    MODEL_KEY,
    NotEnoughWindowsError,
    drop_old_models,
    has_model,
    train,
    training_asset,
    windows_table,
)
from tests.pipelines.plant import START, Plant, Reading

MINUTES = 40
GOLD, SCORES = "gold.sensor_windows_1m", "gold.anomaly_scores"
SMALL = ModelConfig(min_windows=2 * MINUTES, trees=10)


def plant_with_windows(
    folder: Path, minutes: int = MINUTES, settings: ModelConfig = SMALL, options: dict[str, Any] | None = None
) -> Plant:
    """Two sensors, one reading every 20 s, all windows final."""
    plant = Plant(folder, {"ml": settings, **(options or {})})
    plant.land(
        Reading(sensor, second, (second * 7919 + sensor) % 101 / 10).payload
        for second in range(0, minutes * 60, 20)
        for sensor in (0, 1)
    )
    plant.drain()
    plant.now += timedelta(hours=1)
    plant.drain()
    return plant


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = plant_with_windows(tmp_path_factory.mktemp("trained"))
    assert is_ready(plant.context) and not has_model(plant.context)
    assert train_if_needed(plant.context) is not None
    return plant


def windows(plant: Plant) -> Table:
    return windows_table(plant.context.tables)


def test_model_can_be_traced_to_a_tagged_snapshot(trained: Plant) -> None:
    model = trained.context.models.latest(MODEL)
    assert model is not None
    refs = trained.context.lakehouse.table(windows(trained).stored, refresh=True).refs()
    assert refs[model.training.tag].snapshot_id == model.training.snapshot
    assert model.training.tag.removeprefix("model-") == model.model_id.split("-")[0]
    assert model.training.rows == 2 * MINUTES
    assert model.training.parameters["trees"] == 10


def test_no_second_training_is_needed(trained: Plant) -> None:
    assert train_if_needed(trained.context) is None


def test_scores_are_computed_with_the_trained_model(trained: Plant) -> None:
    trained.drain()
    scores = trained.table(SCORES)
    model = trained.context.models.latest(MODEL)
    assert model is not None
    assert scores.height == 2 * MINUTES
    assert scores["model_id"].unique().to_list() == [model.model_id]
    assert scores["score"].is_not_null().all()


def test_tagged_snapshot_outlives_expiry(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    report = train(plant.context)
    for second in range(4):
        plant.land([Reading(0, 60 * (MINUTES + second), 1.0).payload])
        plant.drain()
    plant.now += timedelta(days=365)
    context = plant.open()
    settings = context.config.maintenance.model_copy(update={"keep_snapshots": 1})
    context.config = context.config.model_copy(update={"maintenance": settings})
    table = windows(plant)
    expired, _ = expire(context, table)
    iceberg = context.lakehouse.table(table.stored, refresh=True)
    left = {s.snapshot_id for s in iceberg.metadata.snapshots}
    assert expired > 0 and report.snapshot in left
    kept = iceberg.scan(snapshot_id=report.snapshot).to_arrow()
    assert pl.DataFrame(kept).filter("is_final").height == report.windows == 2 * MINUTES


def test_only_the_newest_windows_are_learned_from(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"max_windows": 70, "min_windows": 10})
    plant = plant_with_windows(tmp_path, settings=settings)
    report = train(plant.context)
    assert (report.windows, report.rows, report.series) == (70, 70, 2)


def test_too_few_windows_are_told(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path, minutes=5, settings=SMALL.model_copy(update={"min_windows": 10}))
    assert not is_ready(plant.context)
    assert train_if_needed(plant.context) is None
    with pytest.raises(NotEnoughWindowsError, match=r"gold\.sensor_windows_1m: 10 windows of no series"):
        train(plant.context)
    assert not has_model(plant.context)
    assert list(plant.context.lakehouse.table(windows(plant).stored, refresh=True).refs()) == ["main"]


def test_commands_say_why_there_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Enough windows in all, but too few in each series."""
    plant_with_windows(tmp_path / "lake", minutes=5)
    config = tmp_path / "secchi.toml"
    config.write_text('[lakehouse]\npath = "lake"\n[ml]\nmin_windows = 10\n')
    reason = (
        "model sensor_windows: gold.sensor_windows_1m has 10 final windows in 2 series, half of which have 5 or fewer; "
        "the first training needs 10 (ml.min_windows), and 30 in most series"
    )
    call = ["--config", str(config)]
    assert main([*call, "model"]) == 0
    assert " ".join(capsys.readouterr().out.split()) == reason
    assert main([*call, "process"]) == 0
    assert reason in " ".join(capsys.readouterr().err.split())
    assert main([*call, "model", "--group", "interface"]) == 0
    assert "model interface: gold.interface_rates_1m has 0 final windows in 0 series" in capsys.readouterr().out


def test_empty_lakehouse_has_nothing_to_learn_from(tmp_path: Path) -> None:
    context = Plant(tmp_path).context
    assert not is_ready(context)
    assert "has 0 final windows in 0 series" in str(why_untrained(context))
    with pytest.raises(NotEnoughWindowsError, match=r"0 final windows; a model needs ml\.min_windows = 500"):
        train(context)


def test_model_of_another_library_is_trained_again(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    first = train_if_needed(plant.context)
    card = plant.folder / "models" / MODEL / str(first) / "model.json"
    card.write_text(card.read_text().replace('"scikit-learn": "', '"scikit-learn": "0.'))
    plant.now += timedelta(minutes=1)
    context = plant.open()
    assert not has_model(context)
    assert train_if_needed(context) not in (None, first)
    assert has_model(context)


def test_model_of_other_features_is_trained_again(tmp_path: Path) -> None:
    """It is whole and loads, but no score can be computed with it."""
    plant = plant_with_windows(tmp_path)
    train(plant.context)
    card = next((plant.folder / "models" / MODEL).glob("*/model.json"))
    card.write_text(card.read_text().replace('"level"', '"height"'))
    assert not has_model(plant.open())


def test_old_models_go_with_their_tags(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"keep_models": 2})
    plant = plant_with_windows(tmp_path, settings=settings)
    context, table, trained = plant.context, windows(plant), []
    for _ in range(4):
        plant.now += timedelta(days=1)
        trained.append(train(context))
    plant.now += timedelta(days=1)
    iceberg = context.lakehouse.table(table.stored, refresh=True)
    being_trained = f"model-{plant.now:%Y%m%dT%H%M%SZ}"  # its model is not stored yet
    iceberg.manage_snapshots().create_tag(trained[0].snapshot, being_trained).commit()
    reports = {report.table: report for report in maintain(context)}
    assert reports[GOLD].error is None
    kept = trained[2:]
    assert context.models.ids(MODEL) == [report.model_id for report in kept]
    assert context.models.current(MODEL) == kept[-1].model_id and has_model(plant.open())
    refs = context.lakehouse.table(table.stored, refresh=True).refs()
    assert set(refs) == {"main", being_trained, *(report.tag for report in kept)}
    assert drop_old_models(context, table) == 0


def test_known_faults_of_a_file_are_not_learned_from(tmp_path: Path) -> None:
    faults = tmp_path / "faults.csv"
    end = START + timedelta(minutes=5)
    faults.write_text(
        f"site_id,device_id,started_at,ended_at,fault\n101,1000,{START:%Y-%m-%dT%H:%M:%SZ},{end:%Y-%m-%dT%H:%M:%SZ},stuck\n"
    )
    plant = plant_with_windows(tmp_path / "lake", options={"fault_labels": [{"file": faults}]})
    assert train(plant.context).rows == 2 * (MINUTES - 5)


def test_detector_that_the_configuration_names_scores_and_explains(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"detector": "benchmarks.skab_norm"})
    plant = plant_with_windows(tmp_path, settings=settings)
    train(plant.context)
    plant.land([Reading(0, 60 * MINUTES, 500.0).payload])
    plant.drain()
    plant.now += timedelta(hours=1)
    plant.drain()
    last = plant.table(SCORES).sort("window_start").row(-1, named=True)
    stored = plant.context.models.load(MODEL, last["model_id"])
    assert (stored.training.parameters["detector"], stored.forest, last["method"]) == (settings.detector, None, "model")
    assert last["is_alarm"] and last["contributions"] is not None
    told = explain(plant.open(), last["score_id"])
    assert (told.differences, told.since) == ([], [])


def test_command_shows_models_and_goes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant = plant_with_windows(tmp_path / "lake")
    first = train(plant.context).model_id
    plant.now += timedelta(days=1)
    second = train(plant.context).model_id
    plant.context.models.use(MODEL, second)
    config = tmp_path / "secchi.toml"
    config.write_text('[lakehouse]\npath = "lake"\n')
    call = ["--config", str(config), "model"]
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert first in shown and f"{second} │ in use" in shown
    assert main([*call, "--rollback"]) == 0
    assert f"{MODEL}: {first} is in use" in capsys.readouterr().out
    assert plant.open().models.current(MODEL) == first
    assert main([*call, "--rollback"]) == 1
    assert f"there is none before {first}" in capsys.readouterr().err
    assert main([*call, "--use", second]) == 0
    assert plant.open().models.current(MODEL) == second
    assert main([*call, "--use", "nothing"]) == 1
    assert main([*call, "--use", second, "--rollback"]) == 2
    assert main([*call, "--group", "nothing"]) == 2


def test_materializing_the_asset_trains(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    asset = training_asset(plant.context.config, plant.context.tables)
    result = dg.materialize([asset], raise_on_error=False)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == MODEL_KEY
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (metadata["rows"], metadata["series"]) == (2 * MINUTES, 2)
    assert metadata["model_id"] == plant.context.models.current(MODEL)
    assert int(str(metadata["snapshot"])) > 0
