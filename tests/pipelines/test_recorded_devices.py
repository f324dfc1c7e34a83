"""Recorded devices from their answers to the tables: a switch, a UPS, a PDU, a Linux host; modules as they fit."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from pipelines.collect.snmp import SnmpCollector
from pipelines.settings.snmp_module import shipped_modules
from pipelines.simulate.snmp_recorded import Recorded, RecordedAgent, RecordedEndpoint, RecordedMib, read_recording
from resources.snmp_ber import integer
from tests.collect.test_snmp import config
from tests.collect.test_snmp_targets import collect
from tests.pipelines.plant import Plant
from tests.resources.snmpd import free_udp_port

SWITCH, UPS, PDU, LINUX = "cisco-c3750", "eaton-93e-80", "apc-8932", "ibm-x3550-m3"
MODULES = {
    SWITCH: {"system", "if-mib", "entity-sensor", "cisco"},
    UPS: {"system", "if-mib", "ups-mib"},
    PDU: {"system", "if-mib", "apc-pdu"},
    LINUX: {"system", "if-mib", "host-resources", "net-snmp"},
}
IN_OCTETS = "1.3.6.1.2.1.31.1.1.1.6"
PORT, PASSED = f"{IN_OCTETS}.10101", 123_456
"""A port of the switch, Gi1/0/1, and what it receives while it is polled."""


class Polled(NamedTuple):
    """The tables, and by recording its device and its objects."""

    plant: Plant
    devices: dict[str, str]
    objects: dict[str, list[Recorded]]

    def rows(self, table: str, name: str) -> pl.DataFrame:
        return self.plant.table(table).filter(pl.col("device_id") == self.devices[name])


def recorded() -> dict[str, list[Recorded]]:
    folder = Path(os.environ.get("SECCHI_TEST_DATA", "nowhere"), "snmp")
    paths = [path for name in MODULES for path in folder.glob(f"{name}.snmprec*")]
    if len(paths) < len(MODULES):
        pytest.skip("SECCHI_TEST_DATA names no folder with snmp/*.snmprec")
    return {path.name.split(".")[0]: read_recording(path) for path in paths}


def later(objects: list[Recorded]) -> list[Recorded]:
    """The device when the port has received more."""
    return [
        Recorded(each.oid, each.tag, integer(int.from_bytes(each.content) + PASSED)[2:]) if each.oid == PORT else each
        for each in objects
    ]


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> Polled:
    objects = recorded()
    plant, ports = Plant(tmp_path_factory.mktemp("recorded") / "lake"), {name: free_udp_port() for name in objects}
    devices = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    fast = {name: {"interval": 0.5} for names in MODULES.values() for name in names}
    made = config(fast, *({"port": port, "timeout": 2} for port in ports.values()), backoff=0.5)

    async def until(collector: SnmpCollector) -> None:
        for change in (list, later):
            transports = [await serve(change(found), ports[name]) for name, found in objects.items()]
            wanted = {name: collector.status()[devices[name]]["answered"] + 8 for name in objects}
            while any(collector.status()[devices[name]]["answered"] < count for name, count in wanted.items()):
                await asyncio.sleep(0.05)
            for transport in transports:
                transport.close()
            await asyncio.sleep(0.01)  # the ports are free only then

    collect(plant.context.landing, made, until)
    plant.now = datetime.now(UTC)
    plant.drain()
    return Polled(plant, devices, objects)


async def serve(objects: list[Recorded], port: int) -> Any:
    agent = RecordedAgent(RecordedMib(objects))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: RecordedEndpoint(agent), local_addr=("127.0.0.1", port))
    return transport


def number(polled: Polled, name: str, oid: str) -> int:
    (found,) = (each for each in polled.objects[name] if each.oid == oid)
    return int.from_bytes(found.content)


@pytest.mark.parametrize("name", MODULES)
def test_what_the_modules_of_a_device_read_is_in_silver(polled: Polled, name: str) -> None:
    answered = polled.rows("silver.device_polls", name).filter("is_up")
    assert set(answered["module"]) == {"auto", *MODULES[name]}
    modules = [shipped_modules()[each] for each in MODULES[name]]
    roots = tuple(f"{root}." for module in modules for root in module.walk)
    gets = {oid for module in modules for oid in module.get}
    wanted = {each.oid for each in polled.objects[name] if each.oid.startswith(roots) or each.oid in gets}
    samples = polled.rows("silver.snmp_samples", name)
    assert set(samples["metric_oid"]) == wanted
    assert samples.filter(pl.col("metric_oid").str.starts_with("1.3.6.1.2.1."))["object_name"].null_count() == 0


def test_counters_of_the_switch_have_rates(polled: Polled) -> None:
    steps = polled.rows("silver.counter_rates", SWITCH).filter(pl.col("counter") == "ifHCInOctets").sort("observed_at")
    mine = steps.filter(pl.col("metric_oid") == PORT)
    assert set(mine["instance_id"]) == {"ifName:Gi1/0/1"} and set(mine["speed_bits_per_second"]) == {1e9}
    assert set(mine["step"][1:]) == {"normal"} and mine["step"][0] == "gap"
    assert mine["delta"].drop_nulls().sum() == PASSED
    assert mine["counter_value"][-1] == number(polled, SWITCH, PORT) + PASSED
    assert steps.filter(pl.col("metric_oid") != PORT)["delta"].sum() == 0
    ports = {each.oid for each in polled.objects[SWITCH] if each.oid.startswith(f"{IN_OCTETS}.")}
    assert set(steps["metric_oid"]) == ports
    minutes = polled.rows("gold.interface_rates_1m", SWITCH).filter(pl.col("if_name") == "Gi1/0/1")
    assert minutes["in_bits_per_second"].sum() > 0 and minutes["steps_implausible"].sum() == 0


def test_health_of_each(polled: Polled) -> None:
    health = {
        name: polled.rows("gold.device_health_5m", name).sort("window_start").row(-1, named=True) for name in MODULES
    }
    switch, ups, pdu, linux = (health[name] for name in (SWITCH, UPS, PDU, LINUX))
    pool = "1.3.6.1.4.1.9.9.48.1.1.1"
    used, free = (sum(number(polled, SWITCH, f"{pool}.{column}.{n}") for n in (1, 2, 16)) for column in (5, 6))
    assert switch["cpu_ratio"] == pytest.approx(0.64) and switch["memory_used_ratio"] == pytest.approx(
        used / (used + free)
    )
    assert (ups["ups_battery_ratio"], ups["temperature_celsius"], ups["cpu_ratio"]) == (1.0, 25.0, None)
    assert ups["ups_load_ratio"] == pytest.approx((0.21 + 0.16 + 0.12) / 3)
    assert linux["memory_used_ratio"] == pytest.approx(82_860 / 102_196) and linux["ups_load_ratio"] is None
    assert (pdu["polls_answered"] > 0, pdu["cpu_ratio"], pdu["ups_battery_ratio"]) == (True, None, None)
    assert all(row["response_seconds"] > 0 for row in health.values())


def test_each_says_what_it_is(polled: Polled) -> None:
    told = {name: polled.rows("silver.device_descriptions", name) for name in MODULES}
    assert {name: rows["sys_name"].drop_nulls().unique().to_list() for name, rows in told.items()} == {
        SWITCH: ["DUMSYS-90"],
        UPS: ["DUMSYS-23"],
        PDU: ["pwr-dc01-pdu-rack3-01"],
        LINUX: ["SNMP Service"],
    }
    now = {name: polled.rows("reference.devices", name).filter(pl.col("valid_to").is_null()) for name in MODULES}
    inventory = {name: rows.row(0, named=True) for name, rows in now.items()}
    vendors = {SWITCH: "Cisco", UPS: "Eaton", PDU: "APC", LINUX: None}
    assert {name: row["vendor"] for name, row in inventory.items()} == vendors
    assert inventory[LINUX]["description"].startswith("Linux vir-extnodeimm 2.6.16.46")
    assert (inventory[UPS]["device_location"], inventory[LINUX]["contact"]) == ("Computer Room", "Burbon")
    assert {row["ip_address"] for row in inventory.values()} == {"127.0.0.1"}


def test_what_has_no_value_is_in_quarantine_and_nothing_else(polled: Polled) -> None:
    rejected = polled.plant.table("quarantine.records")
    assert rejected.is_empty()
