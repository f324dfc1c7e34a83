"""The SNMP collector against real agents: what lands, at which pace, and what one bad target costs the others."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api

from assets.bronze.snmp_polls import snmp_polls as polls_table
from assets.bronze.snmp_varbinds import snmp_varbinds
from pipelines.collect import snmp_polls
from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.snmp import RECORD, SOURCE, SnmpCollector
from pipelines.collect.snmp_polls import PollClock, SnmpStatus, phase
from pipelines.settings.snmp import SnmpConfig
from resources.errors import ConfigurationError
from resources.landing import LandingLimits, LandingStream, read_segment, sealed_segments
from tests.resources.snmpd import free_udp_port, snmpd

V2C = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]
SYSTEM = "1.3.6.1.2.1.1"
FAST = {"interval": 0.05}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with snmpd(tmp_path_factory.mktemp("snmpd")) as port:
        yield port


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes packets and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def config(modules: dict[str, Any], *targets: dict[str, Any], **rest: Any) -> SnmpConfig:
    return SnmpConfig.model_validate(
        {"modules": modules, "targets": [{"host": "127.0.0.1", **target} for target in targets], **rest}
    )


@asynccontextmanager
async def landing(root: Path) -> AsyncIterator[tuple[GroupCommit, GroupCommit]]:
    async with (
        landing_of(root, SOURCE, RECORD) as varbinds,
        landing_of(root, snmp_polls.SOURCE, snmp_polls.RECORD) as polls,
    ):
        yield varbinds, polls


@asynccontextmanager
async def landing_of(root: Path, source: str, record: pa.Schema) -> AsyncIterator[GroupCommit]:
    stream = LandingStream(root, source, "snmp", record, LandingLimits(segment_seconds=0.05))
    commits = GroupCommit(stream)
    running = asyncio.create_task(commits.run())
    try:
        yield commits
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await commits.aclose()


def collect(root: Path, made: SnmpConfig, is_done: Callable[[SnmpCollector], bool]) -> SnmpCollector:
    """Runs a collector until ``is_done`` says so after a poll."""

    async def run() -> SnmpCollector:
        stop = asyncio.Event()
        async with landing(root) as commits, asyncio.timeout(20):

            def polled(target: str, status: SnmpStatus) -> None:
                if is_done(collector):
                    stop.set()

            collector = SnmpCollector(made, *commits, polled)
            await collector.run(stop)
        return collector

    return asyncio.run(run())


def landed(root: Path, source: str = SOURCE) -> list[dict[str, Any]]:
    tables = [read_segment(segment.path)[0] for segment in sealed_segments(root, source)]
    return pa.concat_tables(tables).to_pylist() if tables else []


def test_the_record_is_that_of_bronze() -> None:
    engine = ("stream", "sequence", "row", "ingested_at", "batch_id")
    assert RECORD.names == [n for n in snmp_varbinds.schema if n not in engine]
    assert snmp_polls.RECORD.names == [n for n in polls_table.schema if n not in engine]


def test_polls_land_whole_and_as_answered(tmp_path: Path, agent: int) -> None:
    module = {"get": [f".{SYSTEM}.3.0", f"{SYSTEM}.99.0"], "walk": [f"{SYSTEM}.9"], **FAST}
    made = config({"system": module}, {"port": agent, "modules": ["system"]})
    collector = collect(tmp_path, made, lambda c: c.status()[f"127.0.0.1:{agent}"]["polls"] >= 3)
    rows = landed(tmp_path)
    status = collector.status()[f"127.0.0.1:{agent}"]
    polls: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        polls.setdefault(row["poll_id"], []).append(row)
    assert len(polls) == status["polls"] == status["answered"] == 3
    assert status["varbinds"] == len(rows)
    assert (status["failed"], status["timeouts"], status["failing"], status["last_error"]) == (0, 0, [], None)
    for poll in polls.values():
        assert [r["oid"] for r in poll[:2]] == [f"{SYSTEM}.3.0", f"{SYSTEM}.99.0"]
        assert poll[1]["wire_type"] == "noSuchObject"
        assert all(r["oid"].startswith(f"{SYSTEM}.9.") for r in poll[2:])
        assert len(poll) > 10
        assert {r["target"] for r in poll} == {f"127.0.0.1:{agent}"}
    assert json.loads(json.dumps(collector.status())) == collector.status()


def test_a_dead_target_does_not_stop_the_others_and_is_logged_once(
    tmp_path: Path, agent: int, silent: int, caplog: pytest.LogCaptureFixture
) -> None:
    dead = {"port": silent, "modules": ["up"], "timeout": 0.02, "retries": 0}
    made = config({"up": {"get": [f"{SYSTEM}.3.0"], **FAST}}, dead, {"port": agent, "modules": ["up"]})
    bad, good = f"127.0.0.1:{silent}", f"127.0.0.1:{agent}"

    def is_done(collector: SnmpCollector) -> bool:
        status = collector.status()
        return bool(status[bad]["polls"] >= 4 and status[good]["polls"] >= 4)

    with caplog.at_level(logging.WARNING):
        status = collect(tmp_path, made, is_done).status()
    assert status[bad]["failed"] == status[bad]["timeouts"] == status[bad]["polls"]
    assert status[bad]["failing"] == ["up"]
    assert status[bad]["last_error"].startswith(f"target {bad}: get of {SYSTEM}.3.0 timed out after 0.02 s (0 retries)")
    assert status[good]["failed"] == 0
    assert {r["target"] for r in landed(tmp_path)} == {good}
    assert [r.message.split(";")[0] for r in caplog.records] == [status[bad]["last_error"]]


def test_a_target_that_comes_back_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_udp_port()
    target = f"127.0.0.1:{port}"
    module = {"get": [f"{SYSTEM}.3.0"], **FAST}
    made = config({"up": module}, {"port": port, "modules": ["up"], "timeout": 0.1, "retries": 0})

    async def run() -> None:
        stop, agent = asyncio.Event(), snmpd(tmp_path / "snmpd", port=port)
        async with landing(tmp_path / "landing") as commits, asyncio.timeout(20):
            collector = SnmpCollector(made, *commits)
            running = asyncio.create_task(collector.run(stop))
            while not collector.status()[target]["failed"]:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(agent.__enter__)
            try:
                while collector.status()[target]["failing"]:
                    await asyncio.sleep(0.01)
                stop.set()
                await running
            finally:
                await asyncio.to_thread(agent.__exit__, None, None, None)

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    down, up = (r.message for r in caplog.records)
    assert f"target {target}: get of" in down
    assert up == f"target {target}: module up answers again"


def test_a_stop_lets_polls_in_flight_end_and_land(tmp_path: Path, agent: int) -> None:
    module = {"walk": ["1.3.6.1.2.1"], "interval": 0.01}

    async def run() -> dict[str, Any]:
        stop = asyncio.Event()
        async with landing(tmp_path) as commits, asyncio.timeout(20):
            collector = SnmpCollector(config({"all": module}, {"port": agent, "modules": ["all"]}), *commits)
            running = asyncio.create_task(collector.run(stop))
            await asyncio.sleep(0.1)
            stop.set()
            await running
            return collector.status()

    (status,) = asyncio.run(run()).values()
    rows = landed(tmp_path)
    assert status["polls"] == len({r["poll_id"] for r in rows}) > 0
    assert status["varbinds"] == len(rows)


class _Endless(asyncio.DatagramProtocol):
    """Answers every GETBULK with one more row, for ever."""

    def __init__(self) -> None:
        self.count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        message, _ = decoder.decode(data, asn1Spec=V2C.Message())
        answer = V2C.apiMessage.get_response(message)
        self.count += 1
        V2C.apiPDU.set_varbinds(V2C.apiMessage.get_pdu(answer), [(f"1.3.6.1.{self.count}", V2C.Integer(5))])
        self.transport.sendto(encoder.encode(answer), addr)


def test_a_stop_does_not_wait_longer_than_a_request_may_take(tmp_path: Path) -> None:
    module = {"walk": ["1.3.6.1"], "interval": 0.01}

    async def run() -> dict[str, Any]:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        transport, _ = await loop.create_datagram_endpoint(_Endless, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        made = config({"all": module}, {"port": port, "modules": ["all"], "timeout": 0.1, "retries": 0})
        async with landing(tmp_path) as commits, asyncio.timeout(20):
            collector = SnmpCollector(made, *commits)
            running = asyncio.create_task(collector.run(stop))
            await asyncio.sleep(0.2)
            stop.set()
            await running
        transport.close()
        return collector.status()

    (status,) = asyncio.run(run()).values()
    assert len(landed(tmp_path)) == status["varbinds"] > 1
    assert landed(tmp_path, snmp_polls.SOURCE)[-1]["error"].endswith("the poll was stopped")
    assert (status["last_error"], status["failed"], status["failing"]) == (None, 0, [])


@pytest.mark.parametrize("is_down_before", [False, True])
def test_a_stop_is_no_error_of_the_target(tmp_path: Path, silent: int, is_down_before: bool) -> None:
    target = f"127.0.0.1:{silent}"
    made = config({"up": {"get": [f"{SYSTEM}.3.0"], **FAST}}, {"port": silent, "modules": ["up"], "timeout": 0.1})

    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        stop = asyncio.Event()
        async with landing(tmp_path) as commits, asyncio.timeout(20):
            collector = SnmpCollector(made, *commits)
            running = asyncio.create_task(collector.run(stop))
            if is_down_before:
                while not collector.status()[target]["failed"]:
                    await asyncio.sleep(0.01)
            while collector._targets[target].session._endpoint is None:
                await asyncio.sleep(0.001)
            before = collector.status()[target]
            stop.set()
            await running
        return before, collector.status()[target]

    before, after = asyncio.run(run())
    assert bool(before["last_error"]) is is_down_before
    told = ("polls", "failed", "timeouts", "failing", "last_error")
    assert [after[name] for name in told] == [before[name] for name in told]
    assert landed(tmp_path, snmp_polls.SOURCE)[-1]["error"]


def test_polls_wait_while_landing_is_full(tmp_path: Path, agent: int) -> None:
    async def run() -> tuple[int, int]:
        stop = asyncio.Event()
        stream = LandingStream(tmp_path, SOURCE, "snmp", RECORD, LandingLimits())
        commits = GroupCommit(stream, max_pending_records=1)
        made = config({"up": {"get": [f"{SYSTEM}.3.0"], "interval": 0.01}}, {"port": agent, "modules": ["up"]})
        async with landing_of(tmp_path, snmp_polls.SOURCE, snmp_polls.RECORD) as polls, asyncio.timeout(20):
            collector = SnmpCollector(made, commits, polls)
            running = asyncio.create_task(collector.run(stop))
            while not commits.received:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            while_full = commits.received
            await commits.flush()
            while commits.received == while_full:
                await asyncio.sleep(0.01)
            stop.set()
            await running
        await commits.aclose()
        return while_full, collector.status()[f"127.0.0.1:{agent}"]["skipped"]

    while_full, skipped = asyncio.run(run())
    assert while_full == 1
    assert skipped > 0


def test_no_targets_only_wait_for_the_stop(tmp_path: Path) -> None:
    async def run() -> dict[str, Any]:
        async with landing(tmp_path) as commits, asyncio.timeout(20):
            collector = SnmpCollector(SnmpConfig(), *commits)
            stop = asyncio.Event()
            stop.set()
            await collector.run(stop)
            return collector.status()

    assert asyncio.run(run()) == {}


def test_the_community_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auths = {"lab": {"version": "2c", "community": {"env": "LAB_COMMUNITY"}}}
    with snmpd(tmp_path / "snmpd", community="secret") as port:
        made = config(
            {"up": {"get": [f"{SYSTEM}.3.0"], **FAST}}, {"port": port, "modules": ["up"], "auth": "lab"}, auths=auths
        )
        monkeypatch.delenv("LAB_COMMUNITY", raising=False)
        with pytest.raises(ConfigurationError, match="LAB_COMMUNITY"):
            collect(tmp_path / "landing", made, lambda c: True)
        monkeypatch.setenv("LAB_COMMUNITY", "secret")
        (status,) = collect(tmp_path / "landing", made, lambda c: True).status().values()
    assert (status["answered"], status["failed"]) == (1, 0)


def test_phases_are_stable_and_spread() -> None:
    found = [phase(f"10.0.0.{n}:161", "interfaces") for n in range(200)]
    assert found == [phase(f"10.0.0.{n}:161", "interfaces") for n in range(200)]
    assert all(0 <= p < 1 for p in found)
    counts = [sum(i / 4 <= p < (i + 1) / 4 for p in found) for i in range(4)]
    assert min(counts) > 20


@given(
    st.floats(0, 1e6),
    st.floats(0.01, 3600),
    st.lists(st.floats(0, 10), min_size=1, max_size=30),
)
def test_the_clock_does_not_drift_and_counts_what_it_misses(first: float, interval: float, polls: list[float]) -> None:
    clock = PollClock(first, interval)
    slots, missed, now = [clock.slot], 0, first
    for intervals in polls:
        now = max(now, clock.due) + intervals * interval
        missed += clock.advance(now)
        slots.append(clock.slot)
        assert clock.due == first + clock.slot * interval
        assert clock.due >= now - 1e-6 * max(1.0, now)
    assert all(b > a for a, b in pairwise(slots))
    assert slots[-1] == len(polls) + missed
