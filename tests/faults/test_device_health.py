"""Health of simulated devices and of a real snmpd, from their answers to the table; one of them dies."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from pipelines.collect.snmp import SnmpCollector
from pipelines.simulate.snmp_agents import Agent
from pipelines.simulate.snmp_devices import pdu, server, ups
from tests.collect.test_snmp import config
from tests.collect.test_snmp_targets import collect
from tests.pipelines.plant import Plant
from tests.resources.snmpd import free_udp_port, snmpd

WALK = [f"1.3.6.1.2.1.{root}" for root in ("1", "25.2", "25.3.3", "33", "99")]
SIMULATED = (ups, pdu, server)


def test_each_device_tells_what_it_has(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "lake")
    ports = [free_udp_port() for _ in SIMULATED]
    with snmpd(tmp_path / "snmpd") as real:
        module = {"walk": WALK, "interval": 0.3}
        targets = ({"port": port, "modules": ["m"], "timeout": 1, "retries": 0} for port in (*ports, real))
        made = config({"m": module}, *targets, backoff=0.3)

        async def until(collector: SnmpCollector) -> None:
            async def answered(count: int, *some: int) -> None:
                while any(collector.status()[f"127.0.0.1:{port}"]["answered"] < count for port in some):
                    await asyncio.sleep(0.01)

            agents = [Agent(port, build(1)) for port, build in zip(ports, SIMULATED, strict=True)]
            async with agents[1], agents[2]:
                async with agents[0]:
                    await answered(3, *ports, real)
                while not collector.status()[f"127.0.0.1:{ports[0]}"]["failed"]:
                    await asyncio.sleep(0.01)

        collect(plant.context.landing, made, until)
    plant.now = datetime.now(UTC)
    plant.drain()
    rows = plant.table("gold.device_health_5m").sort("window_start")
    last = {row["device_id"]: row for row in rows.to_dicts()}
    power, rack, host, linux = (last[f"127.0.0.1:{port}"] for port in (*ports, real))
    assert power["availability_ratio"] < 1 and linux["availability_ratio"] > 0.5
    assert 0.3 < power["ups_load_ratio"] < 0.7 and power["ups_battery_ratio"] > 0.5
    assert 20 < power["temperature_celsius"] < 35 and power["cpu_ratio"] is None
    assert 22 < rack["temperature_celsius"] < 27 and rack["ups_load_ratio"] is None
    assert 0 < host["cpu_ratio"] < 1 and 0.4 < host["memory_used_ratio"] < 0.7
    assert 0 < linux["memory_used_ratio"] <= 1 and linux["response_seconds"] < 1
    assert plant.table("quarantine.records").is_empty()
