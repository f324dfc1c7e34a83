"""Retained messages: a broker delivers them again with each subscription, silver counts them once."""

import asyncio
from pathlib import Path

import pytest

from tests.collect.mosquitto import mosquitto, publish
from tests.collect.mqtt_collecting import collecting, open_landing, until
from tests.pipelines.plant import Plant, Reading

TOPIC = "factory_iot/north/101"
READING = Reading(1, 1, 1.5)


async def collect(plant: Plant, port: int, protocol: str, messages: int, reading: Reading | None = None) -> None:
    """Collects until so many messages are durable; a reading is published, retained, once it is subscribed."""
    async with (
        open_landing(plant.context.landing) as landing,
        collecting(landing, port, topics=["factory_iot/#"], protocol=protocol) as collector,
    ):
        await until(lambda: collector.status()["connected"])
        if reading:
            await asyncio.sleep(0.2)
            await asyncio.to_thread(publish, port, [reading.payload], TOPIC, retain=True)
        await until(lambda: landing.durable >= messages)
        await asyncio.sleep(0.3)
        assert landing.durable == messages


@pytest.mark.parametrize(
    ("protocol", "again"),
    [("3.1.1", 1), ("5", 0)],  # MQTT 5 can ask for retained messages with a new subscription alone (3.8.3.1)
)
def test_a_retained_message_is_marked_in_bronze_and_counts_once(tmp_path: Path, protocol: str, again: int) -> None:
    plant = Plant(tmp_path / "lake")
    with mosquitto(tmp_path / "broker") as broker:
        publish(broker.port, [READING.payload], TOPIC, retain=True)
        asyncio.run(collect(plant, broker.port, protocol, 1))
        plant.drain()
        assert plant.table("bronze.mqtt_messages")["retain"].to_list() == [True]
        asyncio.run(collect(plant, broker.port, protocol, again))
        asyncio.run(collect(plant, broker.port, protocol, again + 1, Reading(1, 2, 2.5)))  # live, and then retained
        asyncio.run(collect(plant, broker.port, protocol, again))
        plant.drain()
    bronze = plant.table("bronze.mqtt_messages")
    sent = [bytes(payload) for payload in bronze.filter(~bronze["retain"])["payload"]]
    assert sent == [Reading(1, 2, 2.5).payload]
    assert bronze.height == 2 + 3 * again
    assert plant.table("silver.sensor_readings").sort("observed_at")["measurement"].to_list() == [1.5, 2.5]
    assert plant.table("gold.sensor_windows_1m")["readings"].to_list() == [2]
    assert plant.table("quarantine.records").is_empty()
