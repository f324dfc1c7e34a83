"""When runs are asked for: the sensors, the pauses after failures, and the schedules."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.catalog import load_tables
from pipelines import automation
from pipelines.automation import Failures, reason_to_run, recent_failures, without
from pipelines.config import Config, LakehouseConfig
from pipelines.definitions import definitions
from pipelines.micro_batch_run import FAILED_TABLES
from pipelines.run_process import IN_FLIGHT
from resources.errors import SchemaMismatchError, SourceUnavailableError
from tests.pipelines.plant import Plant, Reading

TABLES = load_tables()
NEVER = Failures()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def config_of(plant: Plant) -> Config:
    return Config(lakehouse=LakehouseConfig(path=plant.folder))


def asked(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> dg.RunRequest:
    """The one run that an evaluation of a sensor asks for."""
    with dg.build_sensor_context(instance) as context:
        (request,) = sensor.evaluate_tick(context).run_requests or []
    return request


def skipped(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> str:
    """Why an evaluation of a sensor asks for no run."""
    with dg.build_sensor_context(instance) as context:
        data = sensor.evaluate_tick(context)
    assert not data.run_requests
    return str(data.skip_message)


def run(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, job: str = "micro_batch", **tags: str
) -> dg.DagsterRun:
    """A run as Dagster would have recorded it."""

    @dg.job(name=job)
    def recorded() -> None: ...

    return instance.create_run_for_job(recorded, status=status, tags=tags)


def test_asks_when_segments_are_sealed_and_not_when_all_is_carried(plant: Plant, instance: dg.DagsterInstance) -> None:
    sensor = automation.micro_batches_sensor(config_of(plant))
    plant.land([Reading(1, 0, 1.5).payload])
    request = asked(sensor, instance)
    assert request.run_key is None
    assert request.tags["secchi/reason"] == "landing has sealed segments"
    plant.drain()
    plant.now += timedelta(hours=1)
    plant.drain()  # the window's sender is silent by now, so the window is final
    assert "nothing to carry" in skipped(sensor, instance)


def test_sensor_opens_an_empty_lakehouse(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    config = Config(lakehouse=LakehouseConfig(path=tmp_path / "new"))
    assert "nothing to carry" in skipped(automation.micro_batches_sensor(config), instance)


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_asks_for_no_second_run(plant: Plant, instance: dg.DagsterInstance, status: str) -> None:
    plant.land([Reading(1, 0, 1.5).payload])
    run(instance, dg.DagsterRunStatus[status])
    told = skipped(automation.micro_batches_sensor(config_of(plant)), instance)
    assert "of micro_batch is" in told
    assert dg.DagsterRunStatus.QUEUED in IN_FLIGHT  # a queued run cannot be recorded without a code server


def test_run_of_another_job_does_not_hold_it(plant: Plant, instance: dg.DagsterInstance) -> None:
    plant.land([Reading(1, 0, 1.5).payload])
    run(instance, dg.DagsterRunStatus.STARTED, job="training")
    assert asked(automation.micro_batches_sensor(config_of(plant)), instance).tags


def test_dead_run_does_not_hold_it(plant: Plant, instance: dg.DagsterInstance) -> None:
    plant.land([Reading(1, 0, 1.5).payload])
    dead = run(instance, dg.DagsterRunStatus.STARTED)
    (plant.folder / "runs").mkdir()
    (plant.folder / "runs" / dead.run_id).touch()
    skipped(automation.micro_batches_sensor(config_of(plant)), instance)
    found = instance.get_run_by_id(dead.run_id)
    assert found is not None and found.status == dg.DagsterRunStatus.FAILURE
    # It counts as a failure, so the next run has its pause of 5 s.
    assert recent_failures(instance).count == 1


def test_segment_of_a_dead_collector_is_a_reason(plant: Plant) -> None:
    plant.stream.write(
        [("north", "factory_iot/north/101", 1, False, Reading(1, 0, 1.5).payload, plant.now, None, None)]
    )
    assert reason_to_run(plant.context, NEVER, 0.0) is None
    os.close(plant.stream._lock)  # as the kernel does when the process is gone
    assert reason_to_run(plant.context, NEVER, 0.0) == "landing has sealed segments"


def test_pauses_grow_and_end_at_five_minutes() -> None:
    pauses = [next(s for s in range(1000) if Failures(n, 0.0).is_over(float(s))) for n in range(9)]
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 300, 300]


def test_failures_count_since_the_last_good_run(instance: dg.DagsterInstance) -> None:
    assert recent_failures(instance) == NEVER
    for status in ("FAILURE", "SUCCESS", "FAILURE", "FAILURE"):
        run(instance, dg.DagsterRunStatus[status], **{FAILED_TABLES: "gold.a,gold.b"})
    found = recent_failures(instance)
    assert found.count == 2 and found.tables == {"gold.a", "gold.b"}
    run(instance, dg.DagsterRunStatus.SUCCESS)
    assert recent_failures(instance) == NEVER


def test_a_run_that_was_killed_after_a_minute_starts_the_count_anew(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that are killed now and then, between which much is carried, do not lead to pauses of minutes."""
    failed = [run(instance, dg.DagsterRunStatus.FAILURE) for _ in range(4)]
    lived = [2.0, 61.0, 2.0, 2.0]  # the newest first
    records = [
        SimpleNamespace(dagster_run=each, start_time=1000.0, end_time=1000.0 + seconds)
        for each, seconds in zip(failed, lived, strict=True)
    ]
    monkeypatch.setattr(instance, "get_run_records", lambda *_, **__: records)
    assert recent_failures(instance).count == 2


def test_what_depends_on_a_failed_table_waits_with_it() -> None:
    rest = without(TABLES, ["silver.sensor_readings"])
    assert not {"silver.sensor_readings", "gold.sensor_windows_1m", "gold.anomaly_scores"} & set(rest)
    assert {"bronze.mqtt_messages", "silver.snmp_samples", "gold.interface_rates_1m"} <= set(rest)


def test_failed_table_is_given_time_and_holds_no_other(plant: Plant) -> None:
    plant.land([Reading(1, 0, 1.5).payload])
    plant.batches.only = ["bronze.mqtt_messages"]
    plant.drain()
    plant.batches.only = [name for name in TABLES if name != "silver.sensor_readings"]
    plant.drain()
    failed = Failures(3, 1000.0, frozenset({"silver.sensor_readings"}))
    assert reason_to_run(plant.context, failed, 1001.0) is None
    assert reason_to_run(plant.context, failed, 1100.0) == "silver.sensor_readings is behind bronze.mqtt_messages"
    plant.land([Reading(1, 1, 1.5).payload])
    assert reason_to_run(plant.context, failed, 1001.0) == "landing has sealed segments"


def test_run_that_failed_without_a_table_is_given_time_whole(plant: Plant) -> None:
    plant.land([Reading(1, 0, 1.5).payload])
    assert reason_to_run(plant.context, Failures(1, 1000.0), 1004.0) is None
    assert reason_to_run(plant.context, Failures(1, 1000.0), 1005.0) == "landing has sealed segments"


def test_table_that_cannot_be_looked_at_is_a_reason(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run carries the other tables; a catalog that does not answer would fail a run too, so none is asked for."""

    def refuse(error: Exception) -> None:
        def look(context: object) -> str:
            raise error

        monkeypatch.setattr("pipelines.micro_batch.is_behind", look)

    refuse(SchemaMismatchError("gold.a: stored column 'x' is long"))
    assert reason_to_run(plant.context, NEVER, 0.0) == "gold.a: stored column 'x' is long"
    refuse(SourceUnavailableError("catalog: does not answer"))
    with dg.DagsterInstance.ephemeral() as instance:
        told = skipped(automation.micro_batches_sensor(config_of(plant)), instance)
    assert told == "catalog: does not answer"


def test_first_model_waits_for_windows(plant: Plant, instance: dg.DagsterInstance) -> None:
    sensor = automation.first_model_sensor(config_of(plant))
    assert "the first training needs 500 (ml.min_windows), and 30 in most series" in skipped(sensor, instance)


def test_first_model_pauses_after_a_failed_training(
    plant: Plant, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automation, "is_ready", lambda context, model: True)
    sensor = automation.first_model_sensor(config_of(plant))
    assert asked(sensor, instance).run_key is None
    failed = run(instance, dg.DagsterRunStatus.STARTED, job="training")
    instance.report_run_failed(failed)
    assert "the last training failed" in skipped(sensor, instance)


def test_everything_runs_by_itself() -> None:
    found = definitions().get_repository_def()
    assert {s.name: s.default_status.value for s in found.sensor_defs} == {
        "micro_batches": "RUNNING",
        "first_model": "RUNNING",
    }
    assert {s.job_name: s.default_status.value for s in found.schedule_defs} == dict.fromkeys(
        ("quality", "drift", "training", "maintenance", "housekeeping"), "RUNNING"
    )
    for name in ("micro_batch", "quality", "drift", "training", "maintenance", "housekeeping"):
        job = found.get_job(name)
        assert job.executor_def.name == "in_process", name
        assert len(job.nodes) == 1 and all(node.definition.pools for node in job.nodes), name


def test_schedule_of_a_job_in_flight_skips(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    (schedule,) = [s for s in automation.schedules(Config()) if s.job_name == "maintenance"]
    with dg.build_schedule_context(instance) as context:
        assert len(schedule.evaluate_tick(context).run_requests or []) == 1
    run(instance, dg.DagsterRunStatus.STARTED, job="maintenance")
    with dg.build_schedule_context(instance) as context:
        data = schedule.evaluate_tick(context)
    assert not data.run_requests and "of maintenance is started" in str(data.skip_message)
