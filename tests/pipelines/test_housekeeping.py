"""Housekeeping: what belongs to an old run is gone, what is recent or in flight is not, and files give space back."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus

from pipelines.config import Config, LakehouseConfig
from pipelines.housekeeping import HOUSEKEEPING, clean, housekeeping_asset

ROOT = Path(__file__).parents[2]
KEEP = timedelta(days=7)
KEY = dg.AssetKey(["gold", "a"])


@dg.asset(key=KEY, check_specs=[dg.AssetCheckSpec("contract", asset=KEY)])
def windows() -> dg.MaterializeResult:  # type: ignore[type-arg]
    print("counted")  # noqa: T201  (its output is kept by Dagster, and must go with the run)
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True, check_name="contract")])


@pytest.fixture(params=["consolidated", "default"])
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dg.DagsterInstance:
    """An instance of ``pipelines/dagster.yaml``, and one that Dagster sets up without it."""
    home = tmp_path / "home"
    home.mkdir()
    if request.param == "consolidated":
        shutil.copy(ROOT / "pipelines" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return dg.DagsterInstance.get()


@pytest.fixture
def home(tmp_path: Path, instance: dg.DagsterInstance) -> Path:
    return tmp_path / "home"


def finished_run(instance: dg.DagsterInstance) -> str:
    return dg.materialize([windows], instance=instance, tags={"note": "of this run"}).run_id


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def mentions(home: Path, run_id: str) -> list[str]:
    """Tables and files that still know a run, but for the last results of its checks and materializations."""
    found = [str(p.relative_to(home)) for p in home.rglob(f"*{run_id}*")]
    for file in home.rglob("*.db"):
        with closing(sqlite3.connect(file)) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                if "run_id" in columns:
                    query = f"SELECT count(*) FROM {table} WHERE run_id = ?"
                    count = connection.execute(query, (run_id,)).fetchone()[0]
                    found += [table] * bool(count)
    return sorted(found)


def test_old_run_goes_with_all_that_belongs_to_it(instance: dg.DagsterInstance, home: Path) -> None:
    first, second = finished_run(instance), finished_run(instance)
    assert "run_tags" in mentions(home, first) and "asset_check_executions" in mentions(home, first)
    cleaned = clean(instance, KEEP, later(8))
    assert (cleaned.runs_deleted, cleaned.checks_deleted) == (2, 1)
    assert mentions(home, first) == []
    assert mentions(home, second) == ["asset_check_executions"]  # the last result of a check is kept
    assert instance.get_runs() == []


def test_recent_runs_and_their_checks_stay(instance: dg.DagsterInstance, home: Path) -> None:
    run_id = finished_run(instance)
    before = mentions(home, run_id)
    cleaned = clean(instance, KEEP, later(6.9))
    assert (cleaned.runs_deleted, cleaned.checks_deleted) == (0, 0)
    assert mentions(home, run_id) == before
    assert cleaned.bytes > 0


def test_run_in_flight_is_never_deleted(instance: dg.DagsterInstance) -> None:
    @dg.job
    def endless() -> None: ...

    run = instance.create_run_for_job(endless, status=dg.DagsterRunStatus.STARTED)
    assert clean(instance, KEEP, later(100)).runs_deleted == 0
    assert instance.get_run_by_id(run.run_id) is not None


def test_old_ticks_go_and_skipped_ones_within_hours(instance: dg.DagsterInstance) -> None:
    location = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "micro_batches")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE)
    instance.add_instigator_state(state)

    def tick(status: TickStatus, age: timedelta) -> None:
        at = (datetime.now(UTC) - age).timestamp()
        names = state.instigator_origin_id, state.instigator_name
        instance.create_tick(TickData(*names, InstigatorType.SENSOR, status, at, [], selector_id=state.selector_id))

    for status in (TickStatus.SKIPPED, TickStatus.SUCCESS):
        for age in (timedelta(minutes=5), timedelta(hours=2), timedelta(days=8)):
            tick(status, age)
    clean(instance, KEEP, datetime.now(UTC))
    left = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    hours = sorted((t.status.value, round((datetime.now(UTC).timestamp() - t.timestamp) / 3600)) for t in left)
    assert hours == [("SKIPPED", 0), ("SUCCESS", 0), ("SUCCESS", 2)]


def swell(file: Path) -> int:
    """Fills a file and deletes again what it was filled with; returns its size."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE filler (data BLOB)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(20000000))")
        connection.execute("DROP TABLE filler")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


def test_files_shrink_when_no_run_is_in_flight(instance: dg.DagsterInstance, home: Path) -> None:
    @dg.job
    def endless() -> None: ...

    file = home / "history" / "runs.db"
    size = swell(file)
    run = instance.create_run_for_job(endless, status=dg.DagsterRunStatus.STARTED)
    assert clean(instance, KEEP, later(0)).files_vacuumed == 0
    assert file.stat().st_size == size
    assert clean(instance, KEEP, later(0), own_run=run.run_id).files_vacuumed == 1
    assert file.stat().st_size < size / 4
    assert instance.get_run_by_id(run.run_id) is not None


def test_file_with_few_free_pages_is_left_alone(instance: dg.DagsterInstance) -> None:
    finished_run(instance)
    assert clean(instance, KEEP, later(8)).files_vacuumed == 0


def test_locked_file_is_left_for_the_next_time(instance: dg.DagsterInstance, home: Path) -> None:
    file = home / "schedules" / "schedules.db"
    swell(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert clean(instance, KEEP, later(0)).files_vacuumed == 0
        writer.execute("ROLLBACK")


def test_materializing_the_asset_cleans(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    asset = housekeeping_asset(Config(lakehouse=LakehouseConfig(path=tmp_path / "data")))
    result = dg.materialize([asset], instance=instance)
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == HOUSEKEEPING
    assert event.materialization.metadata["runs_deleted"].value == 0
