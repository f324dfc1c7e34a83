"""Old rows go once every reader has passed them."""

from datetime import timedelta
from pathlib import Path

from pipelines.config import MaintenanceConfig
from pipelines.maintenance import maintain
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
