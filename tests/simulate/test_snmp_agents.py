"""The simulated agents against net-snmp's own tools."""

import asyncio
import csv
import os
import re
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulate.snmp_agents import Agent, SnmpAgents
from pipelines.simulate.snmp_devices import Objects, switch
from resources.errors import ConfigurationError, SourceUnavailableError
from tests.services import free_port, require_binary
from tests.simulate.processes import STRICT, lines_until, running, stop

UPTIME = "1.3.6.1.2.1.1.3.0"
OCTETS, HC_OCTETS = "1.3.6.1.2.1.2.2.1.10.7", "1.3.6.1.2.1.31.1.1.1.6.7"
EPHEMERAL = [0, 0, 0, 0]


class Clock:
    """Seconds that move when a test moves them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def net_snmp_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MIBS", ""), ("SNMPCONFPATH", str(tmp_path)), ("SNMP_PERSISTENT_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    (tmp_path / "cert_indexes").mkdir()


async def net_snmp(tool: str, target: str, *oids: str, options: tuple[str, ...] = ("-t2", "-r1")) -> tuple[int, str]:
    """Exit code and output of a net-snmp tool."""
    command = [require_binary(tool), "-v2c", "-cpublic", "-On", "-Oe", "-Ot", *options, target, *oids]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=os.environ
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def numbers(target: str, *oids: str) -> list[int]:
    code, out = await net_snmp("snmpget", target, *oids)
    assert code == 0, out
    return [int(re.findall(r"\d+", line)[-1]) for line in out.splitlines()]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_bulk_walk_of_the_switch_gives_every_object_in_order_and_ends() -> None:
    async def test() -> None:
        async with SnmpAgents(EPHEMERAL) as agents:
            code, out = await net_snmp("snmpbulkwalk", agents.targets[0], "1.3.6.1")
        walked = [line.split(" = ")[0].lstrip(".") for line in out.splitlines() if "No more variables" not in line]
        assert code == 0
        assert walked == sorted(switch(0), key=lambda oid: [int(part) for part in oid.split(".")])
        assert ".1.3.6.1.2.1.2.2.1.5.7 = Gauge32: 4294967295" in out

    run(test())


def test_walk_of_one_column_stops_at_its_end() -> None:
    async def test() -> None:
        async with SnmpAgents(EPHEMERAL) as agents:
            _, out = await net_snmp("snmpbulkwalk", agents.targets[0], "1.3.6.1.2.1.2.2.1.10")
            assert re.findall(r"^\.1\.3\.6\.1\.2\.1\.2\.2\.1\.10\.(\d+) = Counter32: \d+$", out, re.M) == list(
                "12345678"
            )
            _, out = await net_snmp("snmpget", agents.targets[0], "1.3.6.1.2.1.2.2.1.10.9", "1.3.6.1.2.1.99.1")
        assert re.findall("No Such (Instance|Object)", out) == ["Instance", "Object"]

    run(test())


def test_counters_move_with_the_clock_and_both_widths_agree() -> None:
    async def test() -> None:
        clock = Clock()
        async with SnmpAgents(EPHEMERAL, clock=clock) as agents:
            target = agents.targets[0]
            first = await numbers(target, UPTIME, OCTETS, HC_OCTETS)
            assert await numbers(target, UPTIME, OCTETS, HC_OCTETS) == first == [0, 0, 0]
            clock.now += 40.0
            uptime, octets, wide = await numbers(target, UPTIME, OCTETS, HC_OCTETS)
        assert uptime == 4000
        assert wide > 2**32
        assert octets == wide % 2**32

    run(test())


def test_a_reboot_sets_uptime_and_counters_back_after_a_second_of_silence() -> None:
    async def test() -> None:
        clock = Clock()
        async with SnmpAgents(EPHEMERAL, clock=clock) as agents:
            switch_target, ups_target = agents.targets[:2]
            clock.now += 44.75
            before, octets = await numbers(switch_target, UPTIME, HC_OCTETS)
            (ups_before,) = await numbers(ups_target, UPTIME)
            clock.now += 0.5
            code, out = await net_snmp("snmpget", switch_target, UPTIME, options=("-t0.2", "-r0"))
            assert (code, "Timeout" in out, agents.counts["dropped"]) == (1, True, 1)
            clock.now += 1.0
            after, octets_after = await numbers(switch_target, UPTIME, HC_OCTETS)
            (ups_after,) = await numbers(ups_target, UPTIME)
        assert (before, after) == (4475, 125)
        assert octets > 10 * octets_after
        assert ups_after - ups_before == 150

    run(test())


def test_answered_varbinds_are_recorded_without_exceptions(tmp_path: Path) -> None:
    async def test() -> None:
        async with SnmpAgents(EPHEMERAL, tmp_path / "answered.csv") as agents:
            await net_snmp("snmpget", agents.targets[1], UPTIME, "1.3.6.1.9.9")
            await net_snmp("snmpbulkwalk", agents.targets[2], "1.3.6.1.2.1.99")
            with (tmp_path / "answered.csv").open(newline="") as file:
                lines = list(csv.DictReader(file))
            assert agents.counts["varbinds"] == len(lines)
        assert [(line["target"], line["oid"]) for line in lines if line["target"] == agents.targets[1]] == [
            (agents.targets[1], UPTIME)
        ]
        walked = [line for line in lines if line["target"] == agents.targets[2]]
        assert {f"1.3.6.1.2.1.99.1.1.1.{column}.{index}" for column in range(1, 9) for index in range(1, 9)} == {
            line["oid"] for line in walked
        }
        assert {line["requested"] for line in lines} >= {UPTIME, "1.3.6.1.2.1.99"}
        assert all(int(line["request_id"]) > 0 and int(line["answered_at_us"]) > 10**15 for line in lines)

    run(test())


def test_an_own_agent_answers_late_and_counts_what_it_ignores() -> None:
    async def test() -> None:
        objects: Objects = {"1.3.6.1.4.1.32473.9.0": ("OctetString", "mine"), UPTIME: ("TimeTicks", 5)}
        async with Agent(0, objects, delay=0.3) as agent:
            code, out = await net_snmp("snmpget", agent.target, UPTIME, options=("-t0.1", "-r0"))
            assert (code, "Timeout" in out) == (1, True)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as junk:
                junk.sendto(b"\x30\x82junk", ("127.0.0.1", agent.port))
            code, out = await net_snmp("snmpget", agent.target, "1.3.6.1.4.1.32473.9.0")
        assert (code, out) == (0, '.1.3.6.1.4.1.32473.9.0 = STRING: "mine"\n')
        assert agent.counts == {"answered": 2, "varbinds": 2, "ignored": 1, "dropped": 0}

    run(test())


def test_a_taken_port_and_a_wrong_number_of_ports_are_named() -> None:
    async def test() -> None:
        async with Agent(0, {UPTIME: ("TimeTicks", 5)}) as agent:
            with pytest.raises(SourceUnavailableError, match=f"127.0.0.1:{agent.port}: cannot listen: Address already"):
                async with SnmpAgents([0, 0, 0, agent.port]):
                    pass

    run(test())
    with pytest.raises(ConfigurationError, match="--ports must name 4 ports, got 1"):
        SnmpAgents([0])


def test_the_process_serves_four_devices_and_stops_cleanly(tmp_path: Path) -> None:
    ports, file = [free_port() for _ in range(4)], tmp_path / "answered.csv"
    options = ["--ports", ",".join(map(str, ports)), "--answered", str(file), "--seed", "2"]
    with running([*STRICT, "pipelines.cli", "simulate", "snmp", *options]) as process:
        (listening,) = lines_until(process, "phase", "listening")
        assert listening["targets"] == [f"127.0.0.1:{port}" for port in ports]

        async def test() -> list[str]:
            name = "1.3.6.1.2.1.1.5.0"
            return [(await net_snmp("snmpget", target, name))[1].split('"')[1] for target in listening["targets"]]

        assert asyncio.run(test()) == ["sw-1", "ups-1", "pdu-1", "srv-1"]
        code, (summary,), err = stop(process)
    assert (code, err) == (0, "")
    assert summary == {"phase": "done", "answered": 4, "varbinds": 4, "ignored": 0, "dropped": 0}
    assert len(file.read_text().splitlines()) == 5
