"""The SNMP collector's care for its targets: how each poll went, back-off, choice of modules, reload, v3."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect import snmp_polls
from pipelines.collect.snmp import SnmpCollector
from pipelines.collect.snmp_polls import PollClock, Reach
from pipelines.settings.snmp import SnmpConfig
from tests.collect.test_snmp import FAST, SYSTEM, V2C, config, landed, landing
from tests.resources.snmpd import free_udp_port, snmpd
from tests.resources.test_snmp import Agent

V3 = """
createUser reader SHA-256 "auth password" AES "priv password"
rouser reader authpriv
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with snmpd(tmp_path_factory.mktemp("snmpd"), more=V3) as port:
        yield port


def collect(root: Path, made: SnmpConfig, until: Callable[[SnmpCollector], Awaitable[Any]]) -> SnmpCollector:
    """Runs a collector while ``until`` does what it likes with it."""

    async def run() -> SnmpCollector:
        stop = asyncio.Event()
        async with landing(root) as commits, asyncio.timeout(30):
            collector = SnmpCollector(made, *commits)
            running = asyncio.create_task(collector.run(stop))
            try:
                await until(collector)
            finally:
                stop.set()
                await running
        return collector

    return asyncio.run(run())


def polled(count: int, *targets: str) -> Callable[[SnmpCollector], Awaitable[None]]:
    """Waits until each target (or every one) has been polled ``count`` times."""

    async def until(collector: SnmpCollector) -> None:
        while any(collector.status()[t]["polls"] < count for t in targets or collector.status()):
            await asyncio.sleep(0.01)

    return until


def polls_of(root: Path, target: str) -> list[dict[str, Any]]:
    return [row for row in landed(root, snmp_polls.SOURCE) if row["target"] == target]


def test_each_poll_lands_a_row_that_tells_how_it_went(tmp_path: Path, agent: int) -> None:
    up, down = f"127.0.0.1:{agent}", f"127.0.0.1:{free_udp_port()}"
    module = {"get": [f"{SYSTEM}.1.0"], "walk": [f"{SYSTEM}.9"], **FAST}
    dead = {"port": int(down.split(":")[1]), "modules": ["m"], "timeout": 0.02, "retries": 1}
    made = config({"m": module}, {"port": agent, "modules": ["m"]}, dead)
    collector = collect(tmp_path, made, polled(3))
    varbinds = landed(tmp_path)
    for row in polls_of(tmp_path, up):
        assert (row["module"], row["is_up"], row["error"], row["retries"], row["timeouts"]) == ("m", True, None, 0, 0)
        assert row["varbinds"] == sum(v["poll_id"] == row["poll_id"] for v in varbinds) > 10
        assert row["pdus"] == 2 and row["duration_seconds"] > 0 and row["started_at"] < row["received_at"]
    rows = polls_of(tmp_path, down)
    assert len(rows) == collector.status()[down]["polls"]
    for row in rows:
        assert (row["is_up"], row["pdus"], row["retries"], row["timeouts"], row["varbinds"]) == (False, 2, 1, 2, 0)
        assert f"target {down}: get of {SYSTEM}.1.0 timed out" in row["error"]


def scripted(
    root: Path, reply: Callable[[Agent, Any], None], count: int, **options: Any
) -> tuple[str, list[dict[str, Any]]]:
    """Polls an agent whose every answer the test writes; returns its name and the rows of its polls."""
    port = free_udp_port()
    made = config({"m": {"walk": [SYSTEM], **FAST}}, {"port": port, "modules": ["m"], "timeout": 0.5, **options})

    async def until(collector: SnmpCollector) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Agent(reply), local_addr=("127.0.0.1", port))
        while collector.status()[f"127.0.0.1:{port}"]["varbinds"] < count:
            await asyncio.sleep(0.01)
        transport.close()

    collect(root, made, until)
    rows = sorted(polls_of(root, f"127.0.0.1:{port}"), key=lambda row: row["started_at"])
    return f"127.0.0.1:{port}", [row for row in rows if row["is_up"]]


def test_what_a_cut_walk_brought_lands_with_the_error_beside_it(tmp_path: Path) -> None:
    def reply(agent: Agent, response: Any) -> None:
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.{n}.0", V2C.Integer(n)) for n in (1, 3, 2)])
        agent.send()

    target, rows = scripted(tmp_path, reply, 4)
    varbinds = landed(tmp_path)
    for row in rows:
        assert (
            row["error"]
            == f"target {target}: walk of {SYSTEM} was cut: OIDs must increase, got {SYSTEM}.2.0 after {SYSTEM}.3.0"
        )
        assert row["varbinds"] == 2
        mine = [v["oid"] for v in varbinds if v["poll_id"] == row["poll_id"]]
        assert mine == [f"{SYSTEM}.1.0", f"{SYSTEM}.3.0"]


def test_a_slow_agent_is_not_polled_again_before_it_has_answered(tmp_path: Path) -> None:
    def reply(agent: Agent, response: Any) -> None:
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.1.0", V2C.Integer(1)), (f"{SYSTEM}0", V2C.Integer(1))])
        asyncio.get_running_loop().call_later(0.18, agent.send)

    _, rows = scripted(tmp_path, reply, 3)
    assert all(first["received_at"] <= second["started_at"] for first, second in pairwise(rows))
    assert all(row["missed"] >= 3 for row in rows[1:]), "of its slots every 50 ms"


def test_a_silent_target_is_asked_less_and_less_often() -> None:
    reach, began, pauses = Reach(longest=60), 100.0, []
    for _ in range(8):
        reach.note(began, 5, is_up=False)
        pauses.append(reach.until - began)
        began = reach.until
    assert pauses == [5, 10, 20, 40, 60, 60, 60, 60]
    reach.note(began, 5, is_up=True)
    assert reach.until < began
    reach.note(began, 300, is_up=False)
    assert reach.until == began + 300, "never more often than its interval"


def test_slots_are_found_again_after_a_restart() -> None:
    first = PollClock.spread("10.0.0.7:161", "m", 30, now=1000)
    again = PollClock.spread("10.0.0.7:161", "m", 30, now=first.due + 29.9)
    assert 1000 <= first.due < 1030
    assert again.due == pytest.approx(first.due + 30)


def test_auto_reads_what_fits_the_agent(tmp_path: Path, agent: int) -> None:
    target = f"127.0.0.1:{agent}"
    fast = {name: {"interval": 0.1} for name in ("system", "if-mib", "host-resources", "net-snmp")}
    made = config(fast, {"port": agent})

    async def until(collector: SnmpCollector) -> None:
        while len({row["module"] for row in polls_of(tmp_path, target)}) < 5:
            await asyncio.sleep(0.05)

    collect(tmp_path, made, until)
    assert {row["module"] for row in polls_of(tmp_path, target)} == {"auto", *fast}
    assert {f"{SYSTEM}.2.0", f"{SYSTEM}.5.0", "1.3.6.1.2.1.2.2.1.1.1"} <= {row["oid"] for row in landed(tmp_path)}


def test_v3_with_credentials_from_files(tmp_path: Path, agent: int) -> None:
    auth: dict[str, Any] = {"version": "3", "user": "reader", "auth_protocol": "sha256", "priv_protocol": "aes"}
    for kind in ("auth", "priv"):
        (tmp_path / kind).write_text(f"{kind} password\n")
        auth[f"{kind}_password"] = {"file": tmp_path / kind}
    made = config(
        {"m": {"walk": [SYSTEM], **FAST}}, {"port": agent, "modules": ["m"], "auth": "lab"}, auths={"lab": auth}
    )
    collector = collect(tmp_path / "landing", made, polled(2))
    (status,) = collector.status().values()
    assert (status["failed"], status["last_error"]) == (0, None)
    assert status["varbinds"] == len(landed(tmp_path / "landing")) > 20
    assert not any(f"{kind} password" in repr(made) + repr(collector.status()) for kind in ("auth", "priv"))


def test_a_reload_disturbs_no_target_that_did_not_change(tmp_path: Path, agent: int) -> None:
    modules = {"a": {"get": [f"{SYSTEM}.1.0"], **FAST}, "b": {"get": [f"{SYSTEM}.3.0"], **FAST}}
    kept, changed, gone, new = (
        {"host": host, "port": agent, "modules": ["a"]} for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
    )
    with_retries = {"retries": 0, "timeout": 0.2}
    made = config(modules, kept, changed | with_retries, gone | with_retries)

    async def until(collector: SnmpCollector) -> None:
        await polled(2, f"127.0.0.1:{agent}")(collector)
        session = collector._targets[f"127.0.0.1:{agent}"].session
        assert await collector.reload(config(modules, kept, {**changed, **with_retries, "modules": ["b"]}, new))
        assert collector._targets[f"127.0.0.1:{agent}"].session is session
        before = collector.status()[f"127.0.0.1:{agent}"]["polls"]
        await polled(before + 2, f"127.0.0.1:{agent}")(collector)

    collector = collect(tmp_path, made, until)
    assert sorted(collector.status()) == [f"127.0.0.{n}:{agent}" for n in (1, 2, 4)]
    rows = polls_of(tmp_path, f"127.0.0.1:{agent}")
    assert len(rows) == collector.status()[f"127.0.0.1:{agent}"]["polls"]
    assert all(row["is_up"] for row in rows)
    assert {row["module"] for row in polls_of(tmp_path, f"127.0.0.2:{agent}")} <= {"a", "b"}
