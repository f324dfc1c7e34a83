"""SNMPv3 against a real agent: every protocol, wrong credentials, restarts; and the security of single messages."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.snmp import Answer, SnmpSession
from resources.snmp_message import encode_pdu
from resources.snmp_security import UsmSecurity
from resources.snmp_usm import (
    AuthProtocol,
    PrivProtocol,
    UsmError,
    UsmUser,
    localize,
    open_message,
    parse_message,
    scope,
    seal_message,
)
from tests.resources.snmpd import free_udp_port, snmpd

DESCR, NAME = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.5.0"
ENGINE = bytes.fromhex("80001f8880e9630000d61ff449")
USERS = [
    UsmUser(f"{auth}_{priv}", auth, "auth password", priv, "priv password" if priv else "")
    for auth in get_args(AuthProtocol)
    for priv in (None, *get_args(PrivProtocol))
]
PLAIN = UsmUser("plain")
STRONG = UsmUser("SHA-256_AES-128", "SHA-256", "auth password", "AES-128", "priv password")


def configuration() -> str:
    lines = ["createUser plain", "rouser plain noauth"]
    for user in USERS:
        protocol = "AES" if user.priv_protocol == "AES-128" else user.priv_protocol
        priv = f' {protocol} "{user.priv_password}"' if protocol else ""
        lines.append(f'createUser {user.name} {user.auth_protocol} "{user.auth_password}"{priv}')
        lines.append(f"rouser {user.name} {'authpriv' if priv else 'authnopriv'}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with snmpd(tmp_path_factory.mktemp("snmpd"), more=configuration()) as port:
        yield port


def get(port: int, user: UsmUser, context: str = "", oid: str = DESCR) -> Answer:
    async def run() -> Answer:
        session = SnmpSession("127.0.0.1", port, "3", user=user, context=context, timeout_s=1)
        try:
            return await session.get([oid])
        finally:
            session.close()

    return asyncio.run(run())


@pytest.mark.parametrize("user", [PLAIN, *USERS], ids=lambda user: user.name)
def test_every_protocol_is_that_of_net_snmp(agent: int, user: UsmUser) -> None:
    answer = get(agent, user)
    assert ([v.value for v in answer.varbinds], answer.error) == ([b"an agent for tests"], None)
    assert (answer.traffic.pdus, answer.traffic.retries) == (2, 0), "a probe and a get"


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        (UsmUser("nobody", "SHA", "auth password"), "unknownUserNames: it does not know the user"),
        (UsmUser("plain", "SHA", "auth password"), "unsupportedSecLevels"),
        (UsmUser("SHA_None", "SHA", "another password"), "wrongDigests: it has another auth_password"),
        (UsmUser("SHA_None", "SHA-512", "auth password"), "wrongDigests"),
    ],
)
def test_wrong_credentials_are_told_at_once(agent: int, user: UsmUser, reason: str) -> None:
    answer = get(agent, user)
    assert f"target 127.0.0.1:{agent}: get of {DESCR} was refused with {reason}" in str(answer.error)
    assert (answer.timed_out, answer.traffic.timeouts) == (False, 0)


def test_silence_after_discovery_points_to_the_encryption(agent: int) -> None:
    answer = get(agent, UsmUser("SHA_AES-128", "SHA", "auth password", "AES-128", "another password"))
    assert answer.timed_out
    assert str(answer.error).endswith("it may have another priv_password or priv_protocol")


def test_a_context_that_the_agent_does_not_have_is_no_answer_of_the_default_one(agent: int) -> None:
    answer = get(agent, STRONG, "vlan-10")
    assert not [v for v in answer.varbinds if v.value]


def test_each_context_has_its_own_answers(tmp_path: Path) -> None:
    """The agent hands requests for a context on to another agent."""
    users = """
createUser reader SHA-256 "auth password" AES "priv password"
view all included .1
rouser reader authpriv -V all vlan*
rouser reader authpriv
"""
    reader = UsmUser("reader", "SHA-256", "auth password", "AES-128", "priv password")
    with snmpd(tmp_path / "other", "vlan-community", more="sysName vlan-10\n") as other:
        proxy = f"proxy -Cn vlan-10 -v 2c -c vlan-community 127.0.0.1:{other} .1.3.6.1.2.1.1\n"
        with snmpd(tmp_path / "agent", more=f"{users}{proxy}sysName default\n") as port:
            found = [get(port, reader, context, NAME) for context in ("", "vlan-10")]
    assert [[v.value for v in answer.varbinds] for answer in found] == [[b"default"], [b"vlan-10"]]


def test_a_restarted_and_a_replaced_agent_are_found_again(tmp_path: Path) -> None:
    port = free_udp_port()

    async def run() -> list[Answer]:
        session = SnmpSession("127.0.0.1", port, "3", user=STRONG, timeout_s=1)
        answers = []
        try:
            # The same engine with one boot more, then another engine at the same address.
            for folder in ("one", "one", "other"):
                agent = snmpd(tmp_path / folder, port=port, more=configuration())
                await asyncio.to_thread(agent.__enter__)
                try:
                    answers.append(await session.get([DESCR]))
                finally:
                    await asyncio.to_thread(agent.__exit__, None, None, None)
        finally:
            session.close()
        return answers

    answers = asyncio.run(run())
    assert [answer.error for answer in answers] == [None] * 3
    assert [answer.traffic.timeouts for answer in answers] == [0] * 3
    assert all(answer.varbinds for answer in answers)


def test_requests_at_once_are_probed_once_and_of_a_silent_agent_each_times_out(agent: int) -> None:
    async def run(port: int) -> list[Answer]:
        session = SnmpSession("127.0.0.1", port, "3", user=STRONG, timeout_s=0.2, retries=0)
        try:
            return await asyncio.gather(*(session.get([DESCR]) for _ in range(4)))
        finally:
            session.close()

    answers = asyncio.run(run(agent))
    assert [answer.error for answer in answers] == [None] * 4
    assert sum(answer.traffic.pdus for answer in answers) == 5
    assert [answer.timed_out for answer in asyncio.run(run(free_udp_port()))] == [True] * 4


def test_keys_are_those_of_the_rfc() -> None:
    engine = bytes.fromhex("000000000000000000000002")
    found = {name: localize(UsmUser("u", name, "maplesyrup"), engine).auth.hex() for name in ("MD5", "SHA")}
    assert found == {  # RFC 3414 section A.3
        "MD5": "526f5eed9fcce26f8964c2930787d82b",
        "SHA": "6695febc9288e36282235fc7151f128497b38f3f",
    }


@given(st.sampled_from(USERS), st.binary(max_size=200), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_messages_open_as_they_were_sealed(user: UsmUser, payload: bytes, boots: int, time: int) -> None:
    keys = localize(user, ENGINE)
    scoped = scope(ENGINE, "a context", payload)
    message = parse_message(seal_message(keys, 7, boots, time, scoped))
    opened = open_message(message, keys)
    assert (message.message_id, message.boots, message.time, message.user) == (7, boots, time, user.name.encode())
    assert (opened.context_engine_id, opened.context) == (ENGINE, b"a context")
    assert opened.data[opened.at : opened.end] == payload


@pytest.mark.parametrize("user", [STRONG, UsmUser("d", "MD5", "auth password", "DES", "priv password")])
def test_no_octet_of_a_signed_message_can_be_changed(user: UsmUser) -> None:
    keys = localize(user, ENGINE)
    sealed = seal_message(keys, 7, 1, 2, scope(ENGINE, "", encode_pdu("get", [DESCR], 7)))
    for at in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[at] ^= 1 << bit
            with pytest.raises(ValueError):
                message = parse_message(bytes(changed))
                open_message(message, keys)
                # Without its signature, a message opens; it claims less protection than the user has.
                assert message.flags & 3 == user.flags or not message.is_signed
                raise ValueError(f"flags {message.flags}")


def test_an_encrypted_message_must_be_signed() -> None:
    keys = localize(STRONG, ENGINE)
    sealed = bytearray(seal_message(keys, 7, 1, 2, scope(ENGINE, "", b"")))
    sealed[sealed.index(bytes((4, 1, 7))) + 2] = 6
    with pytest.raises(UsmError, match="the user has no keys"):
        open_message(parse_message(bytes(sealed)), keys)


def probed(now: list[float], boots: int = 3, at: int = 1000) -> UsmSecurity:
    """Knows the engine from a signed answer."""
    security = UsmSecurity(STRONG, clock=lambda: now[0])
    report = b"\xa8" + encode_report("4")[1:]
    security.unwrap(seal_message(localize(UsmUser(""), ENGINE), 1, boots, at, scope(ENGINE, "", report)), 0)
    security.unwrap(answered(boots, at), 0)
    return security


def encode_report(counter: str) -> bytes:
    return encode_pdu("get", [f"1.3.6.1.6.3.15.1.1.{counter}.0"], 1)


def answered(boots: int, at: int, user: UsmUser = STRONG, context: str = "") -> bytes:
    pdu = b"\xa2" + encode_pdu("get", [DESCR], 9)[1:]
    return seal_message(localize(user, ENGINE), 9, boots, at, scope(ENGINE, context, pdu))


def test_answers_are_taken_within_the_time_window_only() -> None:
    now = [50.0]
    security = probed(now)
    now[0] += 300
    assert security.unwrap(answered(3, 1300), 0).message_id == 9
    assert security.unwrap(answered(3, 1160), 0).message_id == 9
    for boots, at in ((3, 1149), (2, 5000)):
        with pytest.raises(ValueError, match="older than 150 s"):
            security.unwrap(answered(boots, at), 0)
    assert security.unwrap(answered(4, 1), 0).message_id == 9, "the agent has booted"
    with pytest.raises(ValueError, match="older than 150 s"):
        security.unwrap(answered(3, 1301), 0)


def test_answers_of_others_or_with_less_protection_are_refused() -> None:
    security = probed([0.0])
    signed_only = UsmUser(STRONG.name, "SHA-256", "auth password")
    for datagram in (
        answered(3, 1000, UsmUser("another", "SHA-256", "auth password", "AES-128", "priv password")),
        answered(3, 1000, signed_only),
        answered(3, 1000, UsmUser(STRONG.name)),
        answered(3, 1000, context="another"),
    ):
        with pytest.raises(ValueError):
            security.unwrap(datagram, 0)


def test_only_a_signed_report_sets_the_time() -> None:
    security = probed([0.0])
    report = b"\xa8" + encode_report("2")[1:]
    unsigned = seal_message(localize(UsmUser(""), ENGINE), 1, 900, 1, scope(ENGINE, "", report))
    with pytest.raises(ValueError, match="not signed"):
        security.unwrap(unsigned, 0)
    signed = UsmUser(STRONG.name, "SHA-256", "auth password")
    datagram = seal_message(localize(signed, ENGINE), 1, 900, 1, scope(ENGINE, "", report))
    assert security.unwrap(datagram, 0).report == "notInTimeWindows"
    assert parse_message(security.wrap("get", [DESCR], 5, 0)).boots == 900
