"""The suites as asset checks: which rows they look at, what they tell, and the pages that they keep."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from pipelines import recent_rows as recent
from pipelines.micro_batch_run import asset_key
from pipelines.quality import EXPECTATIONS, KEPT_PAGES, check_table, quality_checks
from pipelines.recent_rows import recent_rows
from tests.pipelines.plant import START, Plant, Reading

SILVER, GOLD = "silver.sensor_readings", "gold.sensor_windows_1m"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    found = Plant(tmp_path_factory.mktemp("plant"), now=START + timedelta(minutes=3))
    found.context.clock = type(found.context).clock  # quality goes by when rows were committed: the real time
    found.land(Reading(1, second, 1.5).payload for second in range(0, 120, 10))
    found.drain()
    return found


def run_checks(plant: Plant, *identifiers: str) -> dg.ExecuteInProcessResult:
    checks = quality_checks(plant.context.config, plant.context.tables)
    keys = [dg.AssetCheckKey(asset_key(i), EXPECTATIONS) for i in identifiers]
    chosen = dg.AssetSelection.checks(*keys)
    job = dg.Definitions(
        asset_checks=[checks], jobs=[dg.define_asset_job("chosen", chosen)], executor=dg.in_process_executor
    ).resolve_job_def("chosen")
    return job.execute_in_process(raise_on_error=False)


def test_suites_of_chosen_tables_become_check_results(plant: Plant) -> None:
    result = run_checks(plant, SILVER, GOLD)
    assert result.success
    found = {e.asset_key.to_user_string(): e for e in result.get_asset_check_evaluations()}
    assert set(found) == {"silver/sensor_readings", "gold/sensor_windows_1m"}
    metadata: dict[str, Any] = {n: v.value for n, v in found["silver/sensor_readings"].metadata.items()}
    assert (metadata["rows"], metadata["failed"]) == (12, 0) and metadata["evaluated"] > 10
    assert found["silver/sensor_readings"].passed
    numbers = [e.asset_observation_data.asset_observation for e in result.get_asset_observation_events()]
    (readings,) = (one for one in numbers if one.asset_key == asset_key(SILVER))
    plotted = {name: float(str(value.value)) for name, value in readings.metadata.items()}
    assert plotted == {"expectations_not_met": 0, "expectations": metadata["evaluated"], "rows_checked": 12}
    (recorded,) = result.get_asset_materialization_events()
    told = {name: value.value for name, value in recorded.materialization.metadata.items()}
    assert (recorded.asset_key, told["tables"], told["tables_not_met"]) == (asset_key("quality.results"), 2, 0)
    page = Path(metadata["page"])
    assert page.parent == plant.folder.absolute() / "quality" / SILVER
    assert SILVER in page.read_text()


def test_unmet_expectation_is_told_with_examples(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = recent_rows(plant.context, plant.context.tables[SILVER]).head(1)

    def doubled_rows(context: object, table: object) -> pl.DataFrame:
        return pl.concat([doubled, doubled])

    monkeypatch.setattr(recent, "recent_rows", doubled_rows)
    result = run_checks(plant, SILVER)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    failures: Any = check.metadata["failures"].value
    (failure,) = failures
    assert "No two rows have the same" in failure["description"]
    assert failure["examples"][0]["sensor_id"] == "10001"


def test_what_a_historic_load_rightly_fails_is_a_warning(tmp_path: Path) -> None:
    plant = Plant(tmp_path)  # its readings are received hours later
    plant.context.clock = type(plant.context).clock
    plant.land([Reading(1, 0, 1.5).payload])
    plant.drain()
    (check,) = run_checks(plant, SILVER).get_asset_check_evaluations()
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN


def test_table_without_rows_has_no_result(plant: Plant) -> None:
    result = run_checks(plant, "silver.snmp_samples", "ops.requests")
    assert result.success
    assert list(result.get_asset_check_evaluations()) == []


def test_rows_count_by_when_they_were_written(tmp_path: Path) -> None:
    plant = Plant(tmp_path)  # its readings are of March
    plant.context.clock = type(plant.context).clock
    plant.land([Reading(1, 0, 1.5).payload])
    plant.drain()
    context, table = plant.context, plant.context.tables[SILVER]
    assert recent_rows(context, table).height == 1
    now = context.clock()
    context.clock = lambda: now + timedelta(hours=2)
    assert recent_rows(context, table).is_empty()
    assert not recent_rows(context, context.tables["reference.mib_objects"]).is_empty()


def test_newest_rows_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = Plant(tmp_path)
    plant.context.clock = type(plant.context).clock
    for second in range(4):
        plant.land([Reading(1, second, float(second)).payload, Reading(2, second, float(second)).payload])
        plant.drain()
    monkeypatch.setattr(recent, "MOST_ROWS", 3)
    rows = recent_rows(plant.context, plant.context.tables[SILVER])
    assert rows["batch_id"].to_list() == [4, 4]
    monkeypatch.setattr(recent, "MOST_ROWS", 1)
    assert recent_rows(plant.context, plant.context.tables[SILVER])["batch_id"].to_list() == [4]


def test_old_pages_are_deleted(plant: Plant) -> None:
    folder = plant.folder / "quality" / GOLD
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(KEPT_PAGES + 5):
        (folder / f"20200101T{number:06}Z.html").write_text("old")
    assert check_table(plant.context, plant.context.tables[GOLD]) is not None
    pages = sorted(p.name for p in folder.glob("*.html"))
    assert len(pages) == KEPT_PAGES
    assert pages[-1] > "2025"


def test_history_of_the_results_can_be_queried(plant: Plant) -> None:
    context, table = plant.context, plant.context.tables[GOLD]
    began = context.clock()
    outcomes = [check_table(context, table) for _ in range(2)]
    told = plant.table("quality.results").filter(pl.col("checked_at") >= began).sort("checked_at", "position")
    assert all(outcomes) and told["checked_at"].n_unique() == 2
    for outcome, rows in zip(outcomes, told.partition_by("checked_at", maintain_order=True), strict=True):
        assert outcome is not None
        assert rows["is_met"].to_list() == [e["success"] for e in outcome[1].expectations]
        assert set(rows["rows"]) == {outcome[0]} and set(rows["table_name"]) == {GOLD}
    assert told["description"].str.contains("No two rows have the same").any()
