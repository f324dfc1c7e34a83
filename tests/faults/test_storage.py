"""Storage that fails: lost answers, races, full disks, a locked catalog, a power cut, a recreated landing directory."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.exc import OperationalError

from pipelines.micro_batch import MicroBatches
from resources.commit import Commit
from resources.lakehouse import Lakehouse
from tests.faults.test_kill import BATCHES, KEYS, carry, filled, state
from tests.pipelines.plant import Plant, Reading


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    plant = filled(tmp_path_factory.mktemp("reference"))
    plant.drain()
    return {name: state(plant, name) for name in KEYS}


def assert_equal(plant: Plant, reference: dict[str, pl.DataFrame]) -> None:
    for table, expected in reference.items():
        assert state(plant, table).equals(expected), table


def test_answer_of_a_commit_is_lost(
    tmp_path: Path, reference: dict[str, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is on disk, the client sees an error: the marker tells, and nothing is written twice."""
    plant = filled(tmp_path)
    original: Callable[..., Any] = SqlCatalog.commit_table
    lost = []

    def commit_table(self: SqlCatalog, table: Any, *rest: Any) -> Any:
        original(self, table, *rest)
        lost.append(table.name())
        raise OperationalError("commit", {}, Exception("connection lost"))

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    plant.drain()
    assert len(lost) >= 5
    assert_equal(plant, reference)


def test_two_planners_with_overlapping_ranges(
    tmp_path: Path, reference: dict[str, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each commit of one planner another one carries everything: the first one plans again."""
    plant = filled(tmp_path)
    other = MicroBatches(plant.open())
    original = Lakehouse.commit_once
    overtaken = []

    def commit_once(self: Lakehouse, commit: Commit) -> Any:
        if self is plant.context.lakehouse and commit.table.identifier not in overtaken:
            overtaken.append(commit.table.identifier)
            other.drain()
        return original(self, commit)

    monkeypatch.setattr(Lakehouse, "commit_once", commit_once)
    plant.drain()
    assert "bronze.mqtt_messages" in overtaken
    assert_equal(plant, reference)


def test_two_processes_at_once(tmp_path: Path, reference: dict[str, pl.DataFrame]) -> None:
    plant = filled(tmp_path)
    command = [sys.executable, "-m", "tests.faults.carry", str(tmp_path), "none"]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert {process.wait(60) for process in both} <= {0, 1}  # 1: gave way to the other and will try again
    plant.context = plant.batches.context = plant.open()
    plant.drain()
    assert_equal(plant, reference)


def test_power_cut(tmp_path: Path, reference: dict[str, pl.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that was never fsynced is gone afterwards; the catalog points at none of them."""
    synced: set[str] = set()

    def recording(original: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            synced.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))
            original(descriptor)

        return sync

    monkeypatch.setattr(os, "fsync", recording(os.fsync))
    monkeypatch.setattr(os, "fdatasync", recording(os.fdatasync))
    plant = filled(tmp_path)
    plant.drain()
    warehouse = (tmp_path / "warehouse").resolve()
    files = [p for p in warehouse.rglob("*") if p.is_file()]
    assert len(files) > 20
    for path in files:
        if str(path) not in synced or str(path.parent) not in synced:
            path.unlink()
    plant.context = plant.batches.context = plant.open()
    assert_equal(plant, reference)


@pytest.mark.parametrize("limit", [2_000, 6_000])
def test_disk_full_in_the_warehouse(tmp_path: Path, reference: dict[str, pl.DataFrame], limit: int) -> None:
    """A file size limit makes the kernel refuse the writes; nothing is lost, and it goes on when there is room."""
    plant = filled(tmp_path)
    process = subprocess.run(
        [sys.executable, "-m", "tests.faults.carry", str(tmp_path), "none"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 1, process.stderr.decode()
    plant.context = plant.batches.context = plant.open()
    plant.drain()
    assert_equal(plant, reference)


def test_catalog_is_locked(
    tmp_path: Path, reference: dict[str, pl.DataFrame], caplog: pytest.LogCaptureFixture
) -> None:
    plant = filled(tmp_path)
    with sqlite3.connect(tmp_path / "catalog.db", isolation_level=None) as lock:
        lock.execute("begin exclusive")
        errors = [r.error for r in plant.batches.run_once() if r.error]
        lock.execute("rollback")
    assert errors and "locked" in errors[0]
    plant.batches = MicroBatches(plant.context)
    plant.drain()
    assert_equal(plant, reference)


def test_landing_directory_is_recreated(tmp_path: Path) -> None:
    """A new directory has a new epoch: its segment 1 is not taken for the old segment 1."""
    plant = Plant(tmp_path)
    plant.land([Reading(1, 1, 1.0).payload])
    plant.drain()
    shutil.rmtree(plant.context.landing)
    plant.stream = plant.new_stream()
    plant.land([Reading(1, 2, 2.0).payload])
    plant.drain()
    assert plant.table("silver.sensor_readings").height == 2


def test_segment_with_a_committed_number_and_other_content(tmp_path: Path) -> None:
    """It is not deleted as done: its bytes go to quarantine."""
    plant = filled(tmp_path, (BATCHES[0],))
    plant.stream.sequence = 1
    plant.land([b"somebody else's segment"])
    raw = (plant.stream.directory / f"{1:012d}.arrows").read_bytes()
    plant.drain()
    kept = plant.table("quarantine.records")
    assert kept.select("reason", "raw").rows() == [("segment_unrecorded", raw)]


def test_kill_leaves_a_dead_collectors_open_segment(tmp_path: Path) -> None:
    """The planner seals what a collector that is gone left open."""
    plant = Plant(tmp_path)
    plant.stream.write(
        [("north", "factory_iot/north/101", 1, False, Reading(1, 1, 1.0).payload, plant.now, None, None)]
    )
    plant.drain()
    assert carry(tmp_path, "none") == 0
    assert plant.table("silver.sensor_readings").is_empty()  # its collector lives
    os.close(plant.stream._lock)
    plant.drain()
    assert plant.table("silver.sensor_readings").height == 1
