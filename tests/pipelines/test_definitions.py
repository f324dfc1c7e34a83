"""What Dagster shows and runs: it loads from nothing, describes every table, and carries chosen ones."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.catalog import load_tables
from assets.table import Table
from pipelines import micro_batch, micro_batch_run, run_process
from pipelines.config import (
    Config,
    LakehouseConfig,
    MaintenanceConfig,
    MicroBatchConfig,
)
from pipelines.context import Context, TableResult
from pipelines.dagster_assets import (
    landing_key,
    maintenance_asset,
    micro_batch_assets,
    outside_specs,
    side_specs,
    streaming,
    table_spec,
)
from pipelines.definitions import definitions
from pipelines.micro_batch import MicroBatches
from pipelines.micro_batch_run import FAILED_TABLES, asset_key, has_contract
from pipelines.run_process import fail_dead_runs, open_run
from pipelines.settings.mqtt import MqttBroker
from pipelines.settings.snmp import SnmpConfig, SnmpTarget
from pipelines.settings.snmp_module import SnmpModule
from resources.errors import SourceUnavailableError
from tests.pipelines.plant import Plant, Reading

ROOT = Path(__file__).parents[2]
TABLES = load_tables()
BRONZE, SILVER, GOLD = "bronze.mqtt_messages", "silver.sensor_readings", "gold.sensor_windows_1m"
ONE_BATCH = MicroBatchConfig(duration=timedelta(0))


def load(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Loads the definitions in a fresh process that stands in ``folder`` and knows nothing but ``environment``."""
    code = (
        "import sys, pipelines.definitions as d; d.definitions().get_repository_def().get_all_jobs();"
        "print(*[m for m in ('great_expectations', 'sklearn', 'skops') if m in sys.modules])"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_definitions_load_with_an_empty_environment(tmp_path: Path) -> None:
    done = load(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", "imported while loading"
    assert list(tmp_path.iterdir()) == []


def test_invalid_configuration_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "secchi.toml"
    path.write_text('[quality]\nschedule = "often"\n')
    done = load(tmp_path, SECCHI_CONFIG=str(path))
    assert done.returncode != 0
    assert "quality.schedule" in done.stderr.splitlines()[-1]
    assert "'often'" in done.stderr.splitlines()[-1]


def test_every_table_is_an_asset_that_explains_itself() -> None:
    graph = repository().asset_graph
    for table in TABLES.values():
        node = graph.get(asset_key(table.identifier))
        assert node.description and node.group_name == table.layer and node.owners == [table.owner], table.identifier
        assert node.kinds == set(table.kinds), table.identifier
        schema = node.metadata["dagster/column_schema"]
        assert [c.name for c in schema.columns] == list(table.schema), table.identifier
        assert all(c.description and c.type for c in schema.columns), table.identifier
        assert node.metadata["dagster/table_name"] == table.identifier
        names = {key.name for key in graph.get_check_keys_for_assets({node.key})}
        wanted = {"contract", "expectations"} if is_carried(table.identifier) else {"expectations"}
        has_drift = table.model is not None
        assert names == wanted | ({"drift"} if has_drift else set()), table.identifier


def is_carried(identifier: str) -> bool:
    return TABLES[identifier] in streaming(TABLES) and has_contract(TABLES[identifier])


def test_column_lineage_follows_columns_to_landing() -> None:
    def upstream(identifier: str, column: str) -> set[tuple[str, str]]:
        lineage = table_spec(TABLES[identifier]).metadata["dagster/column_lineage"]
        return {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage.deps_by_column[column]}

    for table in streaming(TABLES):
        lineage: Any = table_spec(table).metadata["dagster/column_lineage"]
        assert lineage.deps_by_column or table.layer == "reference", table.identifier
    assert upstream(BRONZE, "payload") == {("landing/mqtt_messages", "payload")}
    assert upstream(SILVER, "stream") == {("bronze/mqtt_messages", "stream")}


def test_graph_reaches_from_the_senders_to_the_scores() -> None:
    broker = MqttBroker(name="north-1.a", topics=["factory_iot/#"])
    target = SnmpTarget(host="10.0.0.7", modules=["system"])
    snmp = SnmpConfig(modules={"system": SnmpModule(get=["1.3.6.1.2.1.1.3.0"])}, targets=[target])
    specs = {s.key: s for s in outside_specs(Config(mqtt=[broker], snmp=snmp), TABLES)}
    landing = specs[landing_key(TABLES[BRONZE])]
    assert [d.asset_key.to_user_string() for d in landing.deps] == ["sender/mqtt/north-1.a"]
    assert specs[dg.AssetKey(["sender", "snmp"])].metadata["targets"] == 1
    assert "sender/snmp" in {d.asset_key.to_user_string() for s in specs.values() for d in s.deps}
    graph = repository().asset_graph
    scores = graph.get(asset_key("gold.anomaly_scores"))
    assert {k.to_user_string() for k in scores.parent_keys} == {"gold/sensor_windows_1m", "ml/sensor_window_model"}
    assert not graph.get(asset_key("quarantine.records")).is_executable


def repository() -> dg.RepositoryDefinition:
    return definitions().get_repository_def()


def test_side_tables_and_carried_tables_are_all_tables() -> None:
    shown = [s.key for s in side_specs(TABLES)] + [asset_key(t.identifier) for t in streaming(TABLES)]
    assert sorted(shown, key=str) == sorted((asset_key(i) for i in TABLES), key=str)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    """An instance as ``pipelines/dagster.yaml`` sets it up."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "pipelines" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return dg.DagsterInstance.get()


def test_instance_is_what_its_file_says(instance: dg.DagsterInstance) -> None:
    """A wrong class name in dagster.yaml leaves the UI up and no sensor running, and nothing is said."""
    assert type(instance.event_log_storage).__name__ == "ConsolidatedSqliteEventLogStorage"
    assert type(instance.run_storage).__name__ == "SqliteRunStorage"
    assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
    assert type(instance.run_launcher).__name__ == "DefaultRunLauncher"
    concurrency = instance.get_concurrency_config()
    assert concurrency.pool_config.default_pool_limit == 1
    assert str(concurrency.pool_config.pool_granularity).endswith("RUN")
    assert concurrency.run_queue_config is not None and concurrency.run_queue_config.max_concurrent_runs == 3
    assert instance.run_monitoring_enabled and not instance.telemetry_enabled
    assert instance.get_settings("sensors")["use_threads"]


def config_of(plant: Plant, **options: Any) -> Config:
    return Config(lakehouse=LakehouseConfig(path=plant.folder), micro_batch=ONE_BATCH, **options)


def materialize(
    plant: Plant, instance: dg.DagsterInstance, *identifiers: str, config: Config | None = None
) -> dg.ExecuteInProcessResult:
    """One run of the micro-batch op over all tables, or some."""
    selection = [asset_key(i) for i in identifiers] or None
    asset = micro_batch_assets(config or config_of(plant), plant.context.tables)
    return dg.materialize([asset], selection=selection, instance=instance, raise_on_error=False)


def numbers(result: dg.ExecuteInProcessResult, identifier: str) -> dict[str, Any]:
    """Metadata of a table's last materialization in a run."""
    found = [e for e in result.get_asset_materialization_events() if e.asset_key == asset_key(identifier)]
    return {name: value.value for name, value in found[-1].materialization.metadata.items()} if found else {}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {".".join(e.asset_key.path): e.passed for e in result.get_asset_check_evaluations()}


def test_run_carries_what_landed_and_tells_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plant = Plant(tmp_path / "data")
    plant.land(Reading(1, second, 1.5).payload for second in range(0, 120, 10))
    result = materialize(plant, instance)
    assert result.success
    assert plant.table(SILVER).height == 12
    told = numbers(result, SILVER)
    assert (told["rows"], told["quarantined"], told["dagster/row_count"]) == (12, 0, 12)
    assert told["bytes"] > 0 and told["batch_id"] == 1
    assert checks(result)[SILVER] and checks(result)[GOLD]
    assert list((plant.folder / "runs").iterdir()) == []


def test_second_run_tells_only_of_tables_to_which_something_came(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plant = Plant(tmp_path / "data")
    plant.land([Reading(1, 0, 1.5).payload])
    assert materialize(plant, instance).success
    plant.land([Reading(1, 1, 1.5).payload])
    result = materialize(plant, instance)
    assert numbers(result, SILVER)["dagster/row_count"] == 2
    assert numbers(result, "silver.snmp_samples") == {}
    assert checks(result)["silver.snmp_samples"], "promised by the run, so it must have a result"


def test_run_in_which_windows_come_before_readings_tells_them_upstream_first(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster fails an op that tells of an asset before those that it depends on."""
    plant = Plant(tmp_path / "data")
    plant.land([Reading(1, 0, 1.5).payload])
    assert materialize(plant, instance, BRONZE, SILVER).success
    plant.land([Reading(1, 61, 1.5).payload])

    def gold_first(context: Context, only: Collection[str] | None) -> Iterator[list[TableResult]]:
        yield MicroBatches(context, {GOLD}).run_once()
        yield MicroBatches(context, only).run_once()

    monkeypatch.setattr(micro_batch_run, "_until_idle", gold_first)
    result = materialize(plant, instance)
    assert result.success
    told = [".".join(e.asset_key.path) for e in result.get_asset_materialization_events() if e.asset_key]
    assert told.index(SILVER) < told.index(GOLD)
    assert numbers(result, GOLD)["micro_batches"] == 2


def test_chosen_tables_only(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plant = Plant(tmp_path / "data")
    plant.land([Reading(1, 0, 1.5).payload])
    assert materialize(plant, instance, BRONZE).success
    assert plant.table(BRONZE).height == 1
    assert plant.table(SILVER).is_empty()
    assert materialize(plant, instance, SILVER).success
    assert plant.table(SILVER).height == 1
    assert plant.table(GOLD).is_empty()


def test_rows_that_break_the_contract_warn_with_an_example(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plant = Plant(tmp_path / "data")
    tomorrow = int(timedelta(days=1).total_seconds())
    plant.land([b"{", Reading(1, 0, 1.5).payload, Reading(1, tomorrow, 2.5).payload])
    result = materialize(plant, instance)
    assert result.success
    (check,) = [e for e in result.get_asset_check_evaluations() if e.asset_key == asset_key(SILVER)]
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["violations"].value == 1 and check.metadata["quarantined"].value == 2
    assert check.metadata["reasons"].value == {"time_too_late": 1}
    assert "observed_at" in str(check.metadata["example"].value)
    assert numbers(result, SILVER)["quarantined_reasons"]["time_too_late"] == 1


def test_failing_table_does_not_hold_the_others(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = Plant(tmp_path / "data")
    plant.land([Reading(1, 0, 1.5).payload])
    decode = micro_batch._STEPS["decode"]

    def fail(context: Context, table: Table) -> TableResult:
        if table.identifier == "silver.snmp_samples":
            raise SourceUnavailableError("silver.snmp_samples: the disk does not answer")
        return decode(context, table)

    monkeypatch.setitem(micro_batch._STEPS, "decode", fail)
    result = materialize(plant, instance)
    assert not result.success
    assert plant.table(GOLD).height == 1
    assert numbers(result, GOLD)["rows"] == 1
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    reason = failure.step_failure_data.user_failure_data
    assert reason is not None and reason.description == "silver.snmp_samples: the disk does not answer"
    run = instance.get_run_by_id(result.run_id)
    assert run is not None and run.tags[FAILED_TABLES] == "silver.snmp_samples"


def test_run_goes_on_until_nothing_comes(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plant = Plant(tmp_path / "data")
    for second in range(4):
        plant.land([Reading(1, second, 1.5).payload])
    moments = {"idle": timedelta(milliseconds=20), "pause": timedelta(milliseconds=5)}
    patient = MicroBatchConfig(max_bytes=1, **moments)
    config = config_of(plant).model_copy(update={"micro_batch": patient})
    result = materialize(plant, instance, config=config)
    assert result.success
    assert plant.table(SILVER).height == 4
    assert numbers(result, BRONZE)["micro_batches"] == 4


def test_maintenance_tells_what_it_did(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plant = Plant(tmp_path / "data")
    for second in range(3):
        plant.land([Reading(1, second, 1.5).payload])
        plant.drain()
    maintenance = MaintenanceConfig(compact_files=2)
    result = dg.materialize([maintenance_asset(config_of(plant, maintenance=maintenance))], instance=instance)
    told = numbers(result, "ops.maintenance")
    assert told["files_merged"] >= 3
    (event,) = result.get_asset_materialization_events()
    records: Any = event.materialization.metadata["tables"]
    assert told["files_merged"] == sum(record.data["files_merged"] for record in records.records)
    assert plant.table(SILVER).height == 3


def test_run_whose_process_is_gone_is_failed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    config = Config(lakehouse=LakehouseConfig(path=tmp_path / "data"))
    job = micro_batch_job(config)
    alive = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    dead = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    with open_run(config, instance, alive):
        (tmp_path / "data" / "runs" / dead.run_id).touch()
        assert fail_dead_runs(instance, config) == [dead.run_id]
        assert fail_dead_runs(instance, config) == []
        assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
        assert status(instance, alive) == dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_run_that_died_before_it_had_its_lock_is_failed(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    config = Config(lakehouse=LakehouseConfig(path=tmp_path / "data"))
    job = micro_batch_job(config)
    dead, alive = (instance.create_run_for_job(job, status=dg.DagsterRunStatus[status]) for _ in range(2))
    with open_run(config, instance, alive):
        assert fail_dead_runs(instance, config) == [], "both may be on their way to their lock"
        monkeypatch.setattr(run_process, "_LONGEST_SILENCE", 0.0)
        assert fail_dead_runs(instance, config) == [dead.run_id]


def test_lock_is_free_once_its_process_was_killed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    config = Config(lakehouse=LakehouseConfig(path=tmp_path / "data"))
    run = instance.create_run_for_job(micro_batch_job(config), status=dg.DagsterRunStatus.STARTED)
    code = (
        "import dagster, sys, time; from pathlib import Path; from pipelines.run_process import open_run\n"
        "from pipelines.config import Config, LakehouseConfig\n"
        "config, instance = Config(lakehouse=LakehouseConfig(path=Path(sys.argv[1]))), dagster.DagsterInstance.get()\n"
        "with open_run(config, instance, instance.get_run_by_id(sys.argv[2])):\n"
        "    print('open', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data"), run.run_id],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == b"open\n"
        assert fail_dead_runs(instance, config) == []
    finally:
        child.kill()
        child.communicate()
    assert fail_dead_runs(instance, config) == [run.run_id]


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def micro_batch_job(config: Config) -> dg.JobDefinition:
    asset = micro_batch_assets(config, TABLES)
    return dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
