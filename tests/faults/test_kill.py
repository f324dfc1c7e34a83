"""kill -9 at every named point of a micro-batch; afterwards the tables equal an undisturbed run."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from resources.landing import sealed_segments
from tests.faults.carry import POINTS
from tests.pipelines.plant import SERIES, Plant, Reading, compared

BATCHES = (
    [Reading(s, t, float(s + t)).payload for s in range(3) for t in range(0, 200, 7)],
    [b"{broken", *(Reading(s, t, float(s + t)).payload for s in range(3) for t in range(100, 300, 9)), b""],
)
KEYS = {
    "bronze.mqtt_messages": ["sequence", "row"],
    "silver.sensor_readings": [*SERIES, "observed_at"],
    "gold.sensor_windows_1m": [*SERIES, "window_start"],
    "quarantine.records": ["sequence", "row"],
}
VARYING = ["stream", "record_id", "quarantined_at", "ingested_at"]


def carry(folder: Path, point: str) -> int:
    """Runs the process; returns its exit code (-9 when it killed itself)."""
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.carry", str(folder), point], check=False, timeout=60
    ).returncode


def filled(folder: Path, batches: tuple[list[bytes], ...] = BATCHES) -> Plant:
    """A plant whose first batch is carried, and whose second waits in landing."""
    plant = Plant(folder)
    plant.land(batches[0])
    plant.drain()
    for batch in batches[1:]:
        plant.land(batch)
    return plant


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    plant = filled(tmp_path_factory.mktemp("reference"))
    plant.drain()
    return {name: state(plant, name) for name in KEYS}


def state(plant: Plant, table: str) -> pl.DataFrame:
    return compared(plant.table(table).drop(VARYING, strict=False), KEYS[table])


@pytest.mark.parametrize("point", POINTS)
def test_kill(tmp_path: Path, reference: dict[str, pl.DataFrame], point: str) -> None:
    plant = filled(tmp_path)
    assert carry(tmp_path, point) == (0 if point == "none" else -9)
    plant.context = plant.batches.context = plant.open()
    plant.drain()
    for table, expected in reference.items():
        assert state(plant, table).equals(expected), f"{table} after a kill {point}"
    assert sealed_segments(plant.context.landing, "mqtt_messages") == []


def test_comparison_bites(tmp_path: Path, reference: dict[str, pl.DataFrame]) -> None:
    """The negative control: a batch that is lost shows in every table."""
    plant = filled(tmp_path, BATCHES[:1])
    plant.drain()
    assert not any(state(plant, table).equals(expected) for table, expected in reference.items())
