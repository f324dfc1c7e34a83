"""An agent numbers its interfaces anew when it reboots: counters and rates stay with the interface, not the number."""

import asyncio
import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from pipelines.collect.snmp import SnmpCollector
from pipelines.simulate.snmp_agents import Agent
from pipelines.simulate.snmp_devices import Interface, Objects, interfaces, system
from tests.collect.test_snmp import FAST, config
from tests.collect.test_snmp_targets import collect
from tests.pipelines.plant import Plant
from tests.resources.snmpd import free_udp_port

MODULE = {"get": ["1.3.6.1.2.1.1.3.0"], "walk": ["1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"], **FAST}
SLOW = Interface("Gi0/1", "printer", 10**9, 1e5, 1e5, start_octets=10**6)
FAST_PORT = Interface("Te1/1", "uplink", 10**10, 1e8, 1e8, start_octets=10**12)


def objects(ports: list[Interface], up_seconds: int) -> Objects:
    return {**system("renumbered", 1, "sw", "", up_seconds), **interfaces(ports, random.Random(1))}


def test_rates_stay_with_the_interface(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "lake")
    port = free_udp_port()
    made = config({"m": MODULE}, {"port": port, "modules": ["m"], "timeout": 1, "retries": 0}, backoff=0.2)

    async def reboot(collector: SnmpCollector) -> None:
        for ports, up_seconds in (([SLOW, FAST_PORT], 10**6), ([FAST_PORT, SLOW], 0)):
            async with Agent(port, objects(ports, up_seconds)):
                answered = collector.status()[f"127.0.0.1:{port}"]["answered"]
                while collector.status()[f"127.0.0.1:{port}"]["answered"] < answered + 6:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)  # the port is free only then

    collect(plant.context.landing, made, reboot)
    plant.now = datetime.now(UTC)
    plant.drain()

    steps = plant.table("silver.counter_rates").filter(pl.col("counter") == "ifHCInOctets").sort("observed_at")
    for name, rate, indexes in (("Gi0/1", 1e5, [1, 2]), ("Te1/1", 1e8, [2, 1])):
        mine = steps.filter(pl.col("instance_id") == f"ifName:{name}")
        assert mine["if_index"].rle().struct.field("value").to_list() == indexes
        assert mine["step"].rle().struct.field("value").to_list() == ["gap", "normal", "reboot", "normal"]
        rates = mine.filter(pl.col("step") == "normal")["rate_per_second"]
        assert rates.is_between(rate / 20, 20 * rate).all(), "each has its own rate before and after"
    by_index = steps.sort("if_index", "observed_at").filter(pl.col("if_index") == 1)["instance_id"]
    assert by_index.n_unique() == 2, "negative control: the number alone would have mixed the two"
    minutes = plant.table("gold.interface_rates_1m")
    assert set(minutes["interface_id"]) == {"ifName:Gi0/1", "ifName:Te1/1"}
    assert minutes["steps_reset"].sum() == 4 and minutes["steps_implausible"].sum() == 0
