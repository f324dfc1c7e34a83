"""Upkeep changes files and snapshots, never rows; and it may be killed, or met by a batch, at any point."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from pipelines import maintenance
from pipelines.config import MaintenanceConfig
from pipelines.context import Context
from pipelines.maintenance import maintain
from pipelines.micro_batch import record_batches
from resources.durable_io import local_path
from resources.lakehouse import Lakehouse
from resources.selection import changes
from tests.pipelines.plant import START, Plant, Reading
from tests.pipelines.upkeep import EAGER, POINTS, opened

BRONZE, SILVER, GOLD = "bronze.mqtt_messages", "silver.sensor_readings", "gold.sensor_windows_1m"
FILLED = (BRONZE, SILVER, GOLD, "quarantine.records", "ops.batches")
OLD = timedelta(days=2).total_seconds()
Rows = dict[str, pl.DataFrame]


def fill(folder: Path, batches: range = range(8), **options: Any) -> Plant:
    """A plant that carried small batches over four hours, each with a bad record."""
    plant = Plant(folder, options=options)
    carry(plant, batches)
    return plant


def carry(plant: Plant, batches: range) -> None:
    for number in batches:
        plant.now += timedelta(minutes=30)
        seconds = range(number * 60, number * 60 + 120, 10)
        readings = [Reading(s, second, float(s + second)).payload for s in range(2) for second in seconds]
        plant.land([b"{broken", *readings])
        plant.drain()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "lake").stream.close()
    shutil.copytree(folder / "lake", folder / "kept")
    return folder


@pytest.fixture
def lake(original: Path) -> Path:
    """A filled lakehouse; always at one place, since Iceberg tables know their absolute locations."""
    shutil.rmtree(original / "lake")
    shutil.copytree(original / "kept", original / "lake")
    return original / "lake"


@pytest.fixture
def context(lake: Path) -> Context:
    return opened(lake, EAGER)


def iceberg(context: Context, identifier: str) -> IcebergTable:
    return context.lakehouse.table(context.tables[identifier].stored, refresh=True)


def files(context: Context, identifier: str) -> list[DataFile]:
    return context.lakehouse.files(context.tables[identifier].stored)


def all_rows(folder: Path) -> Rows:
    """What a new process reads of each table, in order."""
    context = opened(folder, EAGER)
    read = {name: context.lakehouse.read(context.tables[name].stored) for name in FILLED}
    return {name: rows.sort(context.tables[name].key) for name, rows in read.items()}


def assert_same(found: Rows, expected: Rows, *, but: tuple[str, ...] = ()) -> None:
    for name in expected.keys() - set(but):
        assert found[name].equals(expected[name]), name


def done(context: Context) -> dict[str, maintenance.Upkeep]:
    reports = {report.table: report for report in maintain(context)}
    assert [report for report in reports.values() if report.error] == []
    return reports


def files_on_disk(table: IcebergTable) -> set[Path]:
    root = local_path(table.location())
    assert root is not None
    return {path for path in root.rglob("*") if path.is_file()}


# --- compaction --------------------------------------------------------------------------------------------------


def test_small_files_become_few_and_rows_stay(lake: Path, context: Context) -> None:
    before = all_rows(lake)
    assert {name: len(files(context, name)) for name in FILLED[:2]} == {BRONZE: 8, SILVER: 8}
    reports = done(context)
    assert_same(all_rows(lake), before)
    for name in FILLED:
        left = [tuple(f.partition[i] for i in range(len(f.partition))) for f in files(opened(lake, EAGER), name)]
        assert len(left) == len(set(left)), f"{name}: one a partition"
    assert (reports[BRONZE].files_merged, reports[SILVER].files_merged) == (6, 8), "two hours have one file"
    assert all(report.files_merged == 0 for report in maintain(opened(lake, EAGER))), "nothing is left to merge"


def test_reader_gets_the_same_changes_after_compaction(lake: Path, context: Context) -> None:
    stored = context.tables[SILVER].stored
    head, order = context.lakehouse.head(stored).batch_id, ["observed_at", "sensor_id"]

    def feed(lakehouse: Lakehouse) -> list[pl.DataFrame]:
        return [lakehouse.read(stored, changes(n, n + 1)).sort(order) for n in range(head)]

    before = feed(context.lakehouse)
    done(context)
    after = feed(Lakehouse(lake))
    assert len(before) > 5 and all(batch.height for batch in before)
    assert [a.equals(b) for a, b in zip(after, before, strict=True)] == [True] * head


def test_open_partition_waits_until_it_is_worth_it(lake: Path) -> None:
    """The newest partition still grows: a few small files there are left alone."""
    patient = opened(lake, EAGER.model_copy(update={"compact_files": 100}))
    reports = done(patient)
    assert reports[SILVER].files_merged == 0, "one day, which is the newest"
    assert reports[BRONZE].files_merged > 0, "hours that are over"


def test_batches_go_on_after_upkeep(lake: Path, context: Context) -> None:
    done(context)
    plant = Plant(lake)
    plant.now = START + timedelta(hours=10)
    carry(plant, range(8, 10))
    done(opened(lake, EAGER))
    assert plant.table(SILVER).height == plant.table(GOLD)["readings"].sum() == readings(10)
    assert plant.table(SILVER).select("observed_at", "sensor_id").is_unique().all()


def readings(batches: int) -> int:
    """Each brings one minute of readings of two sensors, and again those of the minute before."""
    return 2 * 6 * (batches + 1)


# --- expiry ------------------------------------------------------------------------------------------------------


def test_expiry_deletes_nothing_that_a_kept_snapshot_holds(lake: Path, context: Context) -> None:
    """Not of the last ones, and not of a tagged one, however old; the rest is gone from the disk."""
    kept = {name: context.lakehouse.read(context.tables[name].stored) for name in FILLED}
    tagged = {}
    for name in FILLED:
        table = iceberg(context, name)
        tagged[name] = table.metadata.snapshots[1]
        table.manage_snapshots().create_tag(tagged[name].snapshot_id, "model-1").commit()
        context.lakehouse.table(context.tables[name].stored, refresh=True)
    was = {name: iceberg(context, name).scan(snapshot_id=tagged[name].snapshot_id).to_arrow() for name in FILLED}
    reports = done(context)
    for name in FILLED:
        table = iceberg(opened(lake, EAGER), name)
        assert {s.snapshot_id for s in table.metadata.snapshots} >= {tagged[name].snapshot_id}
        again = table.scan(snapshot_id=tagged[name].snapshot_id).to_arrow()
        assert again.num_rows == was[name].num_rows and again.num_rows > 0
        assert pl.DataFrame(table.scan().to_arrow()).height == kept[name].height
        if name != "ops.batches":
            assert len(table.metadata.snapshots) <= 3 and reports[name].snapshots_expired > 0
        assert files_on_disk(table) == maintenance._held(table), name


def test_young_snapshots_are_kept(lake: Path) -> None:
    context = opened(lake, EAGER.model_copy(update={"keep_snapshots_for": timedelta(hours=1)}))
    before = {name: len(iceberg(context, name).metadata.snapshots) for name in FILLED}
    reports = done(context)
    assert all(report.snapshots_expired == 0 for report in reports.values())
    assert all(len(iceberg(context, name).metadata.snapshots) >= before[name] for name in FILLED)


def test_number_of_snapshots_is_kept(lake: Path) -> None:
    context = opened(lake, EAGER.model_copy(update={"keep_snapshots": 4, "compact_files": 100}))
    newest = [s.snapshot_id for s in iceberg(context, SILVER).metadata.snapshots][-4:]
    assert done(context)[SILVER].snapshots_expired > 0
    assert [s.snapshot_id for s in iceberg(context, SILVER).metadata.snapshots] == newest


def test_commits_are_recorded_before_their_snapshots_go(lake: Path) -> None:
    """The hashes of segments outlive the snapshots: by them a segment is known to be committed."""
    plant = Plant(lake)
    plant.land([Reading(1, 5000, 1.0).payload])
    plant.batches.run_once()
    done(opened(lake, EAGER))
    lines = all_rows(lake)["ops.batches"].filter(pl.col("table_name") == BRONZE)
    assert lines["table_batch_id"].to_list() == list(range(1, 10))
    assert sum(len(json.loads(text)) for text in lines["segments"]) == 9


# --- sweep -------------------------------------------------------------------------------------------------------


def test_sweep_removes_old_orphans_only(lake: Path) -> None:
    context = opened(lake, MaintenanceConfig(sweep_after=timedelta(days=1)))
    table = iceberg(context, SILVER)
    for path in files_on_disk(table):  # as after a day without a commit
        age(path)
    held = files_on_disk(table)
    old, young = (orphan(table, name) for name in ("old.parquet", "young.parquet"))
    old_metadata = orphan(table, "old.metadata.json", "metadata")
    attempt = context.lakehouse.write(context.tables[SILVER].stored, a_reading(context), 99)  # never committed
    age(old, old_metadata)
    reports = done(context)
    left = files_on_disk(table)
    assert not old.exists() and not old_metadata.exists()
    assert young.exists() and {local_path(file.file_path) for file in attempt} <= left
    assert maintenance._held(iceberg(context, SILVER)) <= left and len(held - left) == reports[SILVER].files_deleted - 2
    assert all_rows(lake)[SILVER].height > 0


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (path.stat().st_mtime - OLD,) * 2)


def orphan(table: IcebergTable, name: str, folder: str = "data") -> Path:
    root = local_path(table.location())
    assert root is not None
    path = root / folder / name
    path.write_bytes(b"left by an attempt")
    return path


def a_reading(context: Context) -> pl.DataFrame:
    return context.lakehouse.read(context.tables[SILVER].stored).head(1).drop("batch_id")


# --- others at the same time, and kills --------------------------------------------------------------------------


def run(folder: Path, point: str) -> int:
    """Maintains in a process of its own; returns its exit code (-9 when it killed itself)."""
    command = [sys.executable, "-m", "tests.pipelines.upkeep", str(folder), point]
    return subprocess.run(command, check=False, timeout=60).returncode


@pytest.mark.parametrize("point", POINTS)
def test_kill(lake: Path, point: str) -> None:
    before = all_rows(lake)
    assert run(lake, point) == -9
    assert_same(all_rows(lake), before)
    context = opened(lake, EAGER)
    done(context)
    assert_same(all_rows(lake), before)
    for name in (BRONZE, SILVER, GOLD):
        table = iceberg(context, name)
        assert files_on_disk(table) == maintenance._held(table), f"{name}: nothing is left over"


@pytest.fixture
def maintainer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that maintains again and again until its standard input is closed."""
    command = [sys.executable, "-m", "tests.pipelines.upkeep", str(tmp_path / "lake"), "repeat"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_upkeep_beside_running_batches(lake: Path, tmp_path: Path, maintainer: subprocess.Popen[bytes]) -> None:
    """Neither fails, and the tables are those of an undisturbed plant."""
    assert maintainer.stdout is not None and maintainer.stdout.readline() == b"begins\n"
    fill(tmp_path / "lake")
    told = json.loads(maintainer.communicate(b"end", timeout=60)[0])
    assert told["errors"] == [] and told["rounds"] > 3
    found, expected = all_rows(tmp_path / "lake"), all_rows(lake)
    for name in (BRONZE, SILVER, GOLD, "quarantine.records"):
        key = ["window_start", "sensor_id"] if name == GOLD else ["sequence", "row"]
        one, other = (rows[name].drop("stream", "record_id", strict=False).sort(key) for rows in (found, expected))
        assert one.equals(other), name


def rival_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, rival: Callable[[], None]) -> None:
    """Lets another process's commit happen just before the next call of ``owner.name``."""
    original = getattr(owner, name)

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        rival()
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, late)


def test_batch_between_plan_and_rewrite_wins(lake: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = Plant(lake)
    plant.now = datetime.now(UTC)
    rival_at(monkeypatch, Lakehouse, "rewrite", lambda: carry(plant, range(8, 9)))
    done(context)
    assert plant.table(SILVER).height == all_rows(lake)[SILVER].height == readings(9)


def test_batch_between_plan_and_expiry(lake: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = Plant(lake)
    plant.now = datetime.now(UTC)
    rival_at(monkeypatch, maintenance, "_manifests", lambda: carry(plant, range(8, 9)))
    done(context)
    assert plant.table(SILVER).height == all_rows(lake)[SILVER].height == readings(9)


def test_another_process_may_record_the_same_commits(
    lake: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = Plant(lake)
    plant.land([Reading(1, 5000, 1.0).payload])
    plant.batches.run_once()

    def rival() -> None:
        plant.drain()
        record_batches(opened(lake, EAGER))

    rival_at(monkeypatch, Lakehouse, "commit_once", rival)
    done(context)
    lines = all_rows(lake)["ops.batches"]
    assert lines.select("table_name", "table_batch_id").is_unique().all()


def test_table_that_fails_does_not_stop_the_others(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compact = maintenance.compact

    def fail(context: Context, table: Any) -> int:
        if table.identifier == SILVER:
            raise OSError(28, "No space left on device")
        return compact(context, table)

    monkeypatch.setattr(maintenance, "compact", fail)
    reports = {report.table: report for report in maintain(context)}
    assert reports[SILVER].error == "[Errno 28] No space left on device"
    assert [name for name, report in reports.items() if report.error] == [SILVER]
    assert reports[GOLD].snapshots_expired > 0
    assert f"maintenance of {SILVER}: " in caplog.text
