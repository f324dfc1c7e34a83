"""Datagrams of any kind: a notification, or a reason why it is none."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.ber import encoder
from pysnmp.proto import api, rfc1902

from resources.snmp_ber import SEQUENCE, element, integer, object_identifier, octets
from resources.snmp_engine import SnmpEngine
from resources.snmp_message import encode_pdu
from resources.snmp_notification import (
    INFORM,
    V2_TRAP,
    NotificationError,
    read_envelope,
    read_notification,
    response_to,
)
from resources.snmp_usm import UsmUser, localize, open_message, parse_message, scope, seal_message

ENGINE = bytes.fromhex("80001f8880aabbccdd")
USERS = {
    "alice": [UsmUser("alice", "SHA-256", "alice has a secret", "AES-128", "alice has another")],
    "bob": [UsmUser("bob", "MD5", "bob has a secret")],
}
(ALICE,), (BOB,) = USERS["alice"], USERS["bob"]
UPTIME, TRAP_OID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.6.3.1.1.4.1.0"


def pdu(tag: int, *bindings: bytes, request_id: int = 7) -> bytes:
    return element(tag, integer(request_id), integer(0), integer(0), element(SEQUENCE, *bindings))


def binding(oid: str, value: bytes) -> bytes:
    return element(SEQUENCE, object_identifier(oid), value)


LINK_DOWN = (
    binding(UPTIME, element(0x43, b"\x12\x34")),
    binding(TRAP_OID, object_identifier("1.3.6.1.6.3.1.1.5.3")),
    binding("1.3.6.1.2.1.2.2.1.1.7", integer(7)),
)


def v2c(content: bytes) -> bytes:
    return element(SEQUENCE, integer(1), octets(b"public"), content)


def v3(user: UsmUser, content: bytes, engine_id: bytes = ENGINE, boots: int = 1, seconds: int = 0) -> bytes:
    return seal_message(localize(user, engine_id), 99, boots, seconds, scope(engine_id, "here", content))


def v1(generic: int, specific: int, address: str = "192.0.2.9") -> bytes:
    """As pysnmp encodes it."""
    module = api.PROTOCOL_MODULES[api.SNMP_VERSION_1]
    made = module.TrapPDU()
    module.apiTrapPDU.set_defaults(made)
    module.apiTrapPDU.set_enterprise(made, (1, 3, 6, 1, 4, 1, 9))
    module.apiTrapPDU.set_agent_address(made, address)
    module.apiTrapPDU.set_generic_trap(made, generic)
    module.apiTrapPDU.set_specific_trap(made, specific)
    module.apiTrapPDU.set_timestamp(made, 4711)
    module.apiTrapPDU.set_varbinds(made, [((1, 3, 6, 1, 4, 1, 9, 1), rfc1902.OctetString("x"))])
    message = module.Message()
    module.apiMessage.set_defaults(message)
    module.apiMessage.set_community(message, "public")
    module.apiMessage.set_pdu(message, made)
    return bytes(encoder.encode(message))


@pytest.mark.parametrize(
    ("generic", "specific", "trap_oid"),
    [
        (0, 0, "1.3.6.1.6.3.1.1.5.1"),
        (3, 0, "1.3.6.1.6.3.1.1.5.4"),
        (5, 0, "1.3.6.1.6.3.1.1.5.6"),
        (6, 17, "1.3.6.1.4.1.9.0.17"),
    ],
)
def test_v1_is_mapped(generic: int, specific: int, trap_oid: str) -> None:
    said = read_notification(v1(generic, specific), {})
    assert (said.trap_oid, said.enterprise_oid, said.generic_trap) == (trap_oid, "1.3.6.1.4.1.9", generic)
    assert (said.agent_address, said.uptime_ticks, said.request_id) == ("192.0.2.9", 4711, None)
    assert [v.value for v in said.varbinds] == [b"x"]


def test_v1_without_an_address_has_none() -> None:
    assert read_notification(v1(0, 0, "0.0.0.0"), {}).agent_address is None


def test_what_a_proxy_says_of_a_v1_trap_is_read() -> None:
    said = read_notification(
        v2c(
            pdu(
                V2_TRAP,
                *LINK_DOWN,
                binding("1.3.6.1.6.3.18.1.3.0", element(0x40, bytes((192, 0, 2, 9)))),
                binding("1.3.6.1.6.3.1.1.4.3.0", object_identifier("1.3.6.1.4.1.9")),
            )
        ),
        {},
    )
    assert (said.agent_address, said.enterprise_oid, said.uptime_ticks) == ("192.0.2.9", "1.3.6.1.4.1.9", 0x1234)


def test_v3_is_verified_and_decrypted() -> None:
    said = read_notification(v3(ALICE, pdu(INFORM, *LINK_DOWN)), USERS)
    assert (said.user, said.engine_id, said.context, said.is_inform) == ("alice", ENGINE.hex(), "here", True)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "not_snmp"),
        (b"garbage", "not_snmp"),
        (element(SEQUENCE, integer(2), octets(b"public"), pdu(V2_TRAP)), "not_snmp"),
        (v2c(pdu(V2_TRAP, *LINK_DOWN))[:-1], "not_snmp"),
        (v2c(pdu(V2_TRAP, LINK_DOWN[0])), "not_a_notification"),
        (v2c(encode_pdu("get", [UPTIME], 1)), "not_a_notification"),
        (v1(7, 0), "not_a_notification"),
        (v3(UsmUser("eve"), pdu(V2_TRAP, *LINK_DOWN)), "unknown_user"),
        (v3(UsmUser("alice"), pdu(V2_TRAP, *LINK_DOWN)), "unsupported_level"),
        (v3(UsmUser("bob", "MD5", "something else"), pdu(V2_TRAP, *LINK_DOWN)), "wrong_digest"),
    ],
)
def test_what_is_no_notification_has_a_reason(datagram: bytes, reason: str) -> None:
    with pytest.raises(NotificationError) as caught:
        read_notification(datagram, USERS)
    assert caught.value.reason == reason


def test_the_answer_of_an_inform_is_the_same_with_another_tag() -> None:
    datagram = v2c(pdu(INFORM, *LINK_DOWN))
    envelope = read_envelope(datagram)
    answer = datagram[: envelope.at] + response_to(datagram, envelope.at, envelope.end)
    assert answer == v2c(pdu(0xA2, *LINK_DOWN))


@pytest.fixture
def engine() -> Iterator[SnmpEngine]:
    yield SnmpEngine(ENGINE, 3, USERS, clock=lambda: 1000.0)


def test_discovery_is_answered_and_not_kept(engine: SnmpEngine) -> None:
    probe = seal_message(localize(UsmUser(""), b""), 5, 0, 0, scope(b"", "", encode_pdu("get", [], 5)))
    judged = engine.judge(probe)
    assert (judged.is_kept, judged.response) == (False, None)
    assert judged.report
    message = parse_message(judged.report)
    assert (message.engine_id, message.boots, message.message_id, message.flags) == (ENGINE, 3, 5, 0)


@pytest.mark.parametrize(("boots", "seconds"), [(2, 0), (4, 0), (3, 151)])
def test_an_inform_out_of_time_is_told_the_time(engine: SnmpEngine, boots: int, seconds: int) -> None:
    judged = engine.judge(v3(ALICE, pdu(INFORM, *LINK_DOWN), boots=boots, seconds=seconds))
    assert not judged.is_kept and judged.report
    message = parse_message(judged.report)
    assert message.is_signed and not message.is_encrypted
    open_message(message, localize(UsmUser("alice", "SHA-256", "alice has a secret"), ENGINE))


def test_an_inform_in_time_is_answered_with_its_protection(engine: SnmpEngine) -> None:
    judged = engine.judge(v3(ALICE, pdu(INFORM, *LINK_DOWN), boots=3, seconds=149))
    assert judged.is_kept and not judged.report and judged.response
    answer = parse_message(judged.response())
    assert (answer.message_id, answer.flags) == (99, 3)
    scoped = open_message(answer, localize(ALICE, ENGINE))
    assert scoped.context == b"here"
    assert scoped.data[scoped.at : scoped.at + len(pdu(0xA2, *LINK_DOWN))] == pdu(0xA2, *LINK_DOWN)


def test_a_trap_is_kept_and_not_answered(engine: SnmpEngine) -> None:
    sealed = seal_message(localize(ALICE, b"other"), 1, 1, 1, scope(b"other", "", b"x"), is_reportable=False)
    assert engine.judge(sealed) == (True, None, None)


SEEDS = [
    v1(6, 17),
    v2c(pdu(V2_TRAP, *LINK_DOWN)),
    v2c(pdu(INFORM, *LINK_DOWN)),
    v3(ALICE, pdu(INFORM, *LINK_DOWN), boots=3),
    v3(BOB, pdu(V2_TRAP, *LINK_DOWN)),
]
EDIT = st.tuples(st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4))


@given(st.sampled_from(SEEDS), st.lists(EDIT, max_size=4))
def test_mutated_datagrams_are_read_or_refused(seed: bytes, edits: list[tuple[int, bytes, int]]) -> None:
    datagram = seed
    for at, replacement, cut in edits:
        at %= len(datagram) + 1
        datagram = datagram[:at] + replacement + datagram[at + cut :]
    try:
        assert read_notification(datagram, USERS).trap_oid
    except NotificationError as error:
        assert error.reason
    with suppress(ValueError):
        SnmpEngine(ENGINE, 3, USERS, clock=lambda: 0.0).judge(datagram)


@given(st.binary(max_size=200))
def test_any_octets_are_refused(datagram: bytes) -> None:
    with pytest.raises(NotificationError):
        read_notification(datagram, USERS)
