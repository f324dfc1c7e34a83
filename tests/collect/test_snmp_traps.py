"""The trap collector with net-snmp's senders: datagrams land as they are, an INFORM is answered once it is durable."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from assets.reference.mib_objects import mib_objects
from assets.silver.trap_events import trap_events
from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.snmp_traps import Sources
from pipelines.settings.snmp_traps import SnmpTraps
from resources.errors import ConfigurationError, LandingFullError, SourceUnavailableError
from resources.snmp_engine import open_engine
from resources.snmp_usm import UsmUser
from tests.collect.trap_collecting import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    IF_INDEX,
    LINK_DOWN,
    USERS,
    datagrams,
    listening,
    user_options,
)
from tests.resources.snmpd import has_ipv6

LINK = ("", LINK_DOWN, IF_INDEX, "i", "7")
V1 = ("1.3.6.1.4.1.9.1.1", "192.0.2.9", "2", "0", "4711", IF_INDEX, "i", "7")
COMMUNITY = ("-v2c", "-c", "public")


def events(root: Path, users: Any = None) -> pl.DataFrame:
    assert trap_events.function is not None and mib_objects.function is not None
    known = USERS if users is None else users
    outputs = trap_events.function(datagrams(root), mib_objects=mib_objects.function(), users=known)
    assert outputs.rejects.is_empty(), outputs.rejects["message"].to_list()
    assert outputs.rows.schema == {n: t for n, t in trap_events.schema.items() if n != "batch_id"}
    rows: pl.DataFrame = outputs.rows
    return rows


def test_traps_of_all_versions_are_read(tmp_path: Path) -> None:
    async def run() -> None:
        async with listening(tmp_path) as there:
            await there.send("snmptrap", ("-v1", "-c", "public"), *V1)
            await there.send("snmptrap", COMMUNITY, *LINK)
            for user in (ALICE, BOB, CAROL, DAVE):
                await there.send("snmptrap", user_options(user), *LINK)
            await there.landed(6)
            assert (there.counters["received"], there.counters["landed"], there.counters["answered"]) == (6, 6, 0)

    asyncio.run(run())
    rows = events(tmp_path)
    assert rows["snmp_version"].to_list() == ["1", "2c", "3", "3", "3", "3"]
    assert rows["user_name"].to_list() == [None, None, "alice", "bob", "carol", "dave"]
    assert set(rows["engine_id"].drop_nulls()) == {"80001f8880aabbccdd"}
    assert set(rows["trap_oid"]) == {LINK_DOWN} and set(rows["trap_name"]) == {"linkDown"}
    assert set(rows["variable_bindings"]) == {json.dumps({IF_INDEX: "7"}, separators=(",", ":"))}
    assert json.loads(rows["variables"][1]) == [
        {"oid": IF_INDEX, "object": "ifIndex", "instance": "7", "type": "Integer32", "value": "7"}
    ]
    first = rows.row(0, named=True)
    told = ("device_id", "agent_address", "enterprise_oid", "generic_trap", "specific_trap", "uptime_seconds")
    assert [first[name] for name in told] == ["192.0.2.9", "192.0.2.9", V1[0], 2, 0, 47.11]
    assert rows["device_id"].to_list()[1:] == ["127.0.0.1"] * 5
    assert rows["trap_id"].is_unique().all()


def test_one_port_takes_ipv4_ipv6_and_one_user_of_many_engines(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("there is no ::1")
    engines = [f"80001f8880aabbcc{n:02x}" for n in range(3)]

    async def run() -> None:
        async with listening(tmp_path, host="::") as there:
            for engine, to in zip(engines, ("127.0.0.1", "udp6:[::1]", "udp6:[::1]"), strict=True):
                await there.send("snmptrap", [*user_options(ALICE), "-e", f"0x{engine}"], *LINK, to=to)
            assert (await there.send("snmpinform", user_options(BOB), *LINK, to="udp6:[::1]")).returncode == 0
            await there.landed(4)

    asyncio.run(run())
    rows = events(tmp_path)
    traps = rows.filter(pl.col("engine_id").is_in(engines)).sort("engine_id")
    assert (rows.height, traps["engine_id"].to_list()) == (4, engines)
    assert traps["source_address"].to_list() == ["127.0.0.1", "::1", "::1"]


@pytest.mark.parametrize("user", [None, ALICE, BOB, CAROL, DAVE], ids=lambda u: u.name if u else "v2c")
def test_an_inform_is_answered(tmp_path: Path, user: UsmUser | None) -> None:
    async def run() -> None:
        async with listening(tmp_path) as there:
            sent = await there.send("snmpinform", user_options(user) if user else COMMUNITY, *LINK)
            assert sent.returncode == 0, sent.stderr
            assert there.counters["informs"] == there.counters["answered"] == there.landing.durable == 1

    asyncio.run(run())
    rows = events(tmp_path)
    assert rows.select("is_inform", "trap_name", "user_name").row(0) == (True, "linkDown", user and user.name)


def test_an_inform_is_not_answered_before_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with listening(tmp_path) as there:
            with monkeypatch.context() as patch:

                def full(_: Any) -> None:
                    raise LandingFullError("landing is full")

                patch.setattr(there.landing._stream, "write_batch", full)
                sent = await there.send("snmpinform", COMMUNITY, *LINK)
                assert sent.returncode == 1 and "Timeout" in sent.stderr
                assert there.counters["answered"] == there.landing.durable == 0
            await there.landed(1)
            assert (await there.send("snmpinform", COMMUNITY, *LINK)).returncode == 0

    asyncio.run(run())


def test_while_landing_is_full_datagrams_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with listening(tmp_path) as there:
            monkeypatch.setattr(GroupCommit, "is_writable", False)
            assert (await there.send("snmpinform", COMMUNITY, *LINK)).returncode == 1
            assert there.counters["dropped_full"] == there.counters["received"] == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "why", "taken"),
    [({"deny": ["127.0.0.0/8"]}, "dropped_source", 0), ({"rate": 0.01}, "dropped_rate", 1)],
    ids=["source", "rate"],
)
def test_what_is_not_let_in_is_counted_and_not_landed(
    tmp_path: Path, options: dict[str, Any], why: str, taken: int
) -> None:
    async def run() -> None:
        async with listening(tmp_path, **options) as there:
            for _ in range(3):
                assert (await there.send("snmptrap", COMMUNITY, *LINK)).returncode == 0
            async with asyncio.timeout(10):
                while there.counters["received"] < 3:
                    await asyncio.sleep(0.01)
            assert (there.counters["landed"], there.counters[why]) == (taken, 3 - taken)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        (UsmUser("eve", "SHA-256", "eve has a secret"), "unknown_user"),
        (UsmUser("alice", "SHA-256", "not the password", "AES-128", "alice has another"), "wrong_digest"),
        (UsmUser("alice", "SHA-256", "alice has a secret", "AES-128", "not the password"), "decryption_error"),
        (UsmUser("alice", "SHA-256", "alice has a secret"), "unsupported_level"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_user_opens_is_kept_and_not_answered(tmp_path: Path, stranger: UsmUser, reason: str) -> None:
    async def run() -> None:
        async with listening(tmp_path) as there:
            await there.send("snmptrap", user_options(stranger), *LINK)
            await there.landed(1)
            sent = await there.send("snmpinform", user_options(stranger), *LINK)
            assert sent.returncode == 1
            assert there.counters["answered"] == 0

    asyncio.run(run())
    assert trap_events.function is not None and mib_objects.function is not None
    outputs = trap_events.function(datagrams(tmp_path), mib_objects=mib_objects.function(), users=USERS)
    assert outputs.rows.is_empty()
    assert set(outputs.rejects["reason"]) == {reason}
    assert outputs.rejects["message"].str.starts_with("datagram of 127.0.0.1: ").all()
    users = {**USERS, stranger.name: [*USERS.get(stranger.name, []), stranger]}
    assert events(tmp_path, users)["trap_name"].unique().to_list() == ["linkDown"], "its bytes are whole"


def test_the_engine_keeps_its_id_and_boots_once_more(tmp_path: Path) -> None:
    first, second = (open_engine(tmp_path / "engine.json", {}) for _ in range(2))
    assert first.engine_id == second.engine_id and 5 <= len(first.engine_id) <= 32
    assert (first.boots, second.boots) == (1, 2)
    (tmp_path / "engine.json").write_text("{")
    with pytest.raises(ConfigurationError, match="delete the file for a new engine"):
        open_engine(tmp_path / "engine.json", {})


def test_a_sender_that_knows_an_older_boot_comes_in_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        for _ in range(2):
            async with listening(tmp_path) as there:
                assert (await there.send("snmpinform", user_options(ALICE), *LINK)).returncode == 0

    asyncio.run(run())
    assert events(tmp_path).height == 2


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            async with listening(tmp_path, port=other.getsockname()[1]):
                pass

    with pytest.raises(SourceUnavailableError, match=r"snmp_traps: cannot listen on 127.0.0.1:\d+: Address already"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("allow", "deny", "address", "refusal"),
    [
        ([], [], "192.0.2.1", None),
        (["10.0.0.0/8"], [], "192.0.2.1", "source"),
        (["10.0.0.0/8"], [], "10.1.2.3", None),
        (["10.0.0.0/8"], ["10.1.0.0/16"], "10.1.2.3", "source"),
        (["10.0.0.0/8", "10.1.2.3"], ["10.1.0.0/16"], "10.1.2.3", None),
        ([], ["2001:db8::/32"], "2001:db8::1", "source"),
        ([], ["2001:db8::/32"], "fe80::1%eth0", None),
    ],
)
def test_sources_are_filtered(allow: list[str], deny: list[str], address: str, refusal: str | None) -> None:
    config = SnmpTraps.model_validate({"allow": allow, "deny": deny})
    assert Sources(config).refusal(address, 0.0) == refusal


def test_a_source_is_capped_and_others_are_not() -> None:
    sources = Sources(SnmpTraps(rate=10))
    taken = [sources.refusal("192.0.2.1", 0.0) for _ in range(50)]
    assert taken.count(None) == 20 and taken.count("rate") == 30
    assert sources.refusal("192.0.2.2", 0.0) is None
    assert [sources.refusal("192.0.2.1", 1.0) for _ in range(20)].count(None) == 10
    assert Sources(SnmpTraps(rate=0)).refusal("192.0.2.1", 0.0) is None


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must be an address or a network like '10.0.0.0/8'"):
        SnmpTraps.model_validate({"allow": ["10.0.0.0/99"]})
