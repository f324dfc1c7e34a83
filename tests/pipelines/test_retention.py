"""Old rows go once every reader has passed them."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from pipelines.config import MaintenanceConfig
from pipelines.maintenance import maintain
from pipelines.waiting import request_rebuild
from tests.pipelines.plant import START, Plant, Reading

BRONZE, SILVER, GOLD = "bronze.mqtt_messages", "silver.sensor_readings", "gold.sensor_windows_1m"


def retained(plant: Plant, identifier: str, keep: timedelta) -> None:
    """Upkeep at the plant's time with a retention for one table."""
    settings = MaintenanceConfig(retention={identifier: keep})
    plant.context.config = plant.context.config.model_copy(update={"maintenance": settings})
    assert [report for report in maintain(plant.context) if report.error] == []


def late_and_early(folder: Path) -> Plant:
    """A file of readings at START and one of readings four hours later."""
    plant = Plant(folder)
    for hour in (0, 4):
        plant.land(Reading(1, hour * 3600 + s, 1.0).payload for s in range(0, 100, 10))
        plant.drain()
    return plant


def test_retention_drops_rows_that_are_old(tmp_path: Path) -> None:
    plant = late_and_early(tmp_path)
    retained(plant, SILVER, timedelta(hours=7))
    assert plant.table(SILVER).height == 20
    retained(plant, SILVER, timedelta(hours=3))
    assert plant.table(SILVER)["observed_at"].min() == START + timedelta(hours=4)
    assert plant.table(SILVER).height == 10
    assert plant.table(GOLD)["readings"].sum() == 20, "what was computed from them stays"
    plant.land([Reading(1, 4 * 3600 + 1, 1.0).payload])
    plant.drain()
    assert plant.table(GOLD)["readings"].sum() == 21


def test_retention_waits_for_every_reader(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.batches.only = {BRONZE, SILVER}  # gold has not read them
    plant.land(Reading(1, s, 1.0).payload for s in range(0, 100, 10))
    plant.drain()
    plant.now += timedelta(days=3)
    retained(plant, SILVER, timedelta(hours=1))
    assert plant.table(SILVER).height == 10
    plant.batches.only = None
    plant.drain()
    retained(plant, SILVER, timedelta(hours=1))
    assert plant.table(SILVER).is_empty()
    assert plant.table(GOLD)["readings"].sum() == 10


def dropped(folder: Path) -> Plant:
    """Six readings of the first minute, whose rows silver has dropped, and others four hours later."""
    plant = Plant(folder)
    plant.land(Reading(1, s, 1.0).payload for s in range(0, 60, 10))
    plant.drain()
    plant.land([Reading(1, 4 * 3600, 1.0).payload])
    plant.drain()
    retained(plant, SILVER, timedelta(hours=3))
    assert plant.table(SILVER).height == 1
    return plant


def windows(plant: Plant) -> list[tuple[datetime, int, int]]:
    live = plant.table(GOLD).filter(~pl.col("is_retracted")).sort("window_start")
    return live.select("window_start", "readings", "revision").rows()


def test_windows_whose_readings_were_dropped_stand(tmp_path: Path) -> None:
    """Neither a late reading nor a rebuild makes them anew from what is left."""
    plant = dropped(tmp_path)
    stored = windows(plant)
    assert [readings for _, readings, _ in stored] == [6, 1]
    plant.land([Reading(1, 5, 1.0).payload])
    plant.drain()
    assert plant.table(SILVER).height == 2
    assert windows(plant) == stored
    request_rebuild(plant.context, GOLD)
    plant.drain()
    assert windows(plant) == stored


def test_history_that_comes_after_a_drop_is_computed(tmp_path: Path) -> None:
    """Also where it is older than what was dropped, and comes in parts."""
    plant = dropped(tmp_path)
    for second in (-120, -110):
        plant.land([Reading(1, second, 1.0).payload])
        plant.drain()
    assert [readings for _, readings, _ in windows(plant)] == [2, 6, 1]
