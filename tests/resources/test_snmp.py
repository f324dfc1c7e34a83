"""The SNMP session against a real agent, against agents that misbehave, and against none."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pyasn1.type import univ
from pysnmp.proto import api

from resources.errors import SourceUnavailableError
from resources.snmp import MAX_OIDS, Answer, SnmpSession
from resources.snmp_ber import decode_oid
from resources.snmp_message import Version, encode_request, parse_response
from tests.resources.snmpd import free_udp_port, has_ipv6, run_tool, snmpd

V2C = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]
SYSTEM = "1.3.6.1.2.1.1"
Reply = Callable[[Any, Any], None]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with snmpd(tmp_path_factory.mktemp("snmpd")) as port:
        yield port


def poll(session: SnmpSession, *operations: tuple[str, Any]) -> list[Answer]:
    async def run() -> list[Answer]:
        try:
            return [await getattr(session, name)(argument) for name, argument in operations]
        finally:
            session.close()

    return asyncio.run(run())


def test_get_brings_values_and_the_exceptions(agent: int) -> None:
    (answer,) = poll(
        SnmpSession("127.0.0.1", agent),
        ("get", [f".{SYSTEM}.1.0", f"{SYSTEM}.3.0", f"{SYSTEM}.2.0", f"{SYSTEM}.99.0", f"{SYSTEM}.1.7"]),
    )
    descr, uptime, object_id, no_object, no_instance = answer.varbinds
    assert answer.error is None
    assert (descr.oid, descr.wire_type, descr.value) == (f"{SYSTEM}.1.0", "OctetString", b"an agent for tests")
    assert uptime.wire_type == "TimeTicks"
    assert decode_oid(object_id.value).startswith("1.3.6.1.4.1.8072.")
    assert (no_object.wire_type, no_object.value) == ("noSuchObject", b"")
    assert (no_instance.wire_type, no_instance.value) == ("noSuchInstance", b"")
    assert len({v.request_id for v in answer.varbinds}) == len({v.received_at_us for v in answer.varbinds}) == 1


@pytest.mark.parametrize(("version", "rows"), [("1", 40), ("2c", 40), ("2c", 0)])
def test_a_walk_equals_that_of_net_snmp(agent: int, version: Version, rows: int) -> None:
    root = SYSTEM
    (answer,) = poll(SnmpSession("127.0.0.1", agent, version, max_repetitions=rows), ("walk", f".{root}"))
    assert (answer.traffic.pdus > len(answer.varbinds)) == (version == "1" or rows == 0)
    expected = {
        line.split(" = ", 1)[0].removeprefix("."): line.split(" = ", 1)[1]
        for line in run_tool("snmpbulkwalk", agent, root).stdout.splitlines()
        if " = " in line
    }
    assert answer.error is None
    assert [v.oid for v in answer.varbinds] == list(expected)
    for varbind in answer.varbinds:
        if varbind.wire_type == "OctetString":
            assert expected[varbind.oid].strip('"') == varbind.value.decode()
        elif varbind.wire_type == "ObjectIdentifier":
            assert expected[varbind.oid] == f".{decode_oid(varbind.value)}"
        elif varbind.wire_type == "Integer32":
            assert expected[varbind.oid] == str(int.from_bytes(varbind.value, "big", signed=True))


def test_a_long_walk_brings_every_interface_column(agent: int) -> None:
    (answer,) = poll(SnmpSession("127.0.0.1", agent), ("walk", "1.3.6.1.2.1.2"))
    names = [line.split(" = ")[0] for line in run_tool("snmpbulkwalk", agent, "1.3.6.1.2.1.2").stdout.splitlines()]
    assert [f".{v.oid}" for v in answer.varbinds] == names
    assert {"Integer32", "Counter32", "Gauge32", "OctetString"} <= {v.wire_type for v in answer.varbinds}
    assert len({v.request_id for v in answer.varbinds}) > 1


def test_a_v1_object_that_is_not_there_does_not_hold_up_the_others(agent: int) -> None:
    oids = [f"{SYSTEM}.1.0", f"{SYSTEM}.99.0", f"{SYSTEM}.3.0"]
    (answer,) = poll(SnmpSession("127.0.0.1", agent, "1"), ("get", oids))
    assert answer.error is None
    assert {v.oid: v.wire_type for v in answer.varbinds} == dict(
        zip(oids, ("OctetString", "noSuchName", "TimeTicks"), strict=True)
    )


def test_gets_are_cut_to_pdus(agent: int) -> None:
    oids = [f"{SYSTEM}.1.{n}" for n in range(2 * MAX_OIDS + 1)]
    (answer,) = poll(SnmpSession("127.0.0.1", agent), ("get", [*oids, oids[0]]))
    assert [v.oid for v in answer.varbinds] == oids
    assert len({v.request_id for v in answer.varbinds}) == 3


def test_ipv6(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    with snmpd(tmp_path) as port:
        session = SnmpSession("::1", port)
        (answer,) = poll(session, ("get", [f"{SYSTEM}.1.0"]))
    assert session.target == f"[::1]:{port}"
    assert [v.value for v in answer.varbinds] == [b"an agent for tests"]


def test_a_wrong_community_is_a_timeout(agent: int) -> None:
    session = SnmpSession("127.0.0.1", agent, community="wrong", timeout_s=0.05, retries=1)
    (answer,) = poll(session, ("walk", SYSTEM))
    assert answer.timed_out
    assert str(answer.error) == f"target 127.0.0.1:{agent}: walk of {SYSTEM} timed out after 0.05 s (1 retries)"


def test_a_dead_target_names_target_operation_seconds_and_retries() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        (answer,) = poll(SnmpSession("127.0.0.1", port, timeout_s=0.1, retries=2), ("get", [f"{SYSTEM}.3.0"]))
        silent.setblocking(False)
        packets = [silent.recv(1000) for _ in range(3)]
    assert isinstance(answer.error, SourceUnavailableError)
    assert str(answer.error) == f"target 127.0.0.1:{port}: get of {SYSTEM}.3.0 timed out after 0.1 s (2 retries)"
    assert (answer.timed_out, answer.varbinds) == (True, [])
    assert len(set(packets)) == 1, "a retry keeps its request-id"


def test_a_closed_port_says_so() -> None:
    port = free_udp_port()
    (answer,) = poll(SnmpSession("127.0.0.1", port, timeout_s=0.1, retries=0), ("get", [f"{SYSTEM}.3.0"]))
    assert str(answer.error).endswith("timed out after 0.1 s (0 retries): Connection refused")


class Agent(asyncio.DatagramProtocol):
    """An agent whose every answer the test writes: it changes the response PDU, or sends what it likes."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.sent = 0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        message, _ = decoder.decode(data, asn1Spec=V2C.Message())
        self.address, self.request = addr, V2C.apiMessage.get_pdu(message)
        self.message = V2C.apiMessage.get_response(message)
        self.reply(self, V2C.apiMessage.get_pdu(self.message))

    def send(self) -> None:
        self.sent += 1
        self.transport.sendto(encoder.encode(self.message), self.address)


@asynccontextmanager
async def scripted(reply: Reply, **options: Any) -> AsyncIterator[SnmpSession]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Agent(reply), local_addr=("127.0.0.1", 0))
    session = SnmpSession("127.0.0.1", transport.get_extra_info("sockname")[1], **{"timeout_s": 0.2, **options})
    try:
        yield session
    finally:
        session.close()
        transport.close()


def asked(reply: Reply, name: str, argument: Any, **options: Any) -> Answer:
    async def run() -> Answer:
        async with scripted(reply, **options) as session:
            answer: Answer = await getattr(session, name)(argument)
            return answer

    return asyncio.run(run())


def test_a_walk_whose_oids_do_not_increase_is_cut_and_reported() -> None:
    def reply(agent: Agent, response: Any) -> None:
        rows = [(f"{SYSTEM}.1.0", V2C.OctetString("a")), (f"{SYSTEM}.2.0", V2C.Integer(1)), (f"{SYSTEM}.1.0", V2C.null)]
        V2C.apiPDU.set_varbinds(response, rows)
        agent.send()

    answer = asked(reply, "walk", SYSTEM)
    assert [v.oid for v in answer.varbinds] == [f"{SYSTEM}.1.0", f"{SYSTEM}.2.0"]
    assert not answer.timed_out
    assert str(answer.error).endswith(
        f"walk of {SYSTEM} was cut: OIDs must increase, got {SYSTEM}.1.0 after {SYSTEM}.2.0"
    )


def test_an_agent_that_stops_in_the_middle_of_a_walk_leaves_what_it_brought() -> None:
    def reply(agent: Agent, response: Any) -> None:
        if agent.sent == 0:
            V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.1.0", V2C.Integer(1))])
            agent.send()

    answer = asked(reply, "walk", SYSTEM, timeout_s=0.05, retries=0)
    assert [v.oid for v in answer.varbinds] == [f"{SYSTEM}.1.0"]
    assert answer.timed_out
    assert "timed out" in str(answer.error)


def test_a_walk_ends_outside_its_root_and_at_the_end_of_the_mib() -> None:
    def outside(agent: Agent, response: Any) -> None:
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.9.0", V2C.Integer(1)), ("1.3.6.1.2.1.11.1", V2C.Integer(2))])
        agent.send()

    def end(agent: Agent, response: Any) -> None:
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.9.0", V2C.Integer(1)), (f"{SYSTEM}.9.0", V2C.EndOfMibView())])
        agent.send()

    for reply in (outside, end):
        answer = asked(reply, "walk", SYSTEM)
        assert ([v.oid for v in answer.varbinds], answer.error) == ([f"{SYSTEM}.9.0"], None)


def test_a_pdu_that_is_too_big_is_halved() -> None:
    def reply(agent: Agent, response: Any) -> None:
        varbinds = V2C.apiPDU.get_varbinds(agent.request)
        V2C.apiPDU.set_varbinds(response, [(oid, V2C.Integer(7)) for oid, _ in varbinds])
        if len(varbinds) > 3:
            V2C.apiPDU.set_error_status(response, 1)
        agent.send()

    oids = [f"1.3.6.1.{n}" for n in range(10)]
    answer = asked(reply, "get", oids)
    assert ([v.oid for v in answer.varbinds], answer.error) == (oids, None)


def test_an_object_in_error_is_reported_and_the_others_kept() -> None:
    def reply(agent: Agent, response: Any) -> None:
        oids = [str(oid) for oid, _ in V2C.apiPDU.get_varbinds(agent.request)]
        V2C.apiPDU.set_varbinds(response, [(oid, V2C.Integer(7)) for oid in oids])
        if "1.3.6.1.2" in oids:
            V2C.apiPDU.set_error_status(response, 5)
            V2C.apiPDU.set_error_index(response, 1 + oids.index("1.3.6.1.2"))
        agent.send()

    answer = asked(reply, "get", ["1.3.6.1.1", "1.3.6.1.2", "1.3.6.1.3"])
    assert [v.oid for v in answer.varbinds] == ["1.3.6.1.1", "1.3.6.1.3"]
    assert str(answer.error).endswith("was answered with genErr for 1.3.6.1.2")
    assert not answer.timed_out


def test_a_late_answer_is_not_taken_for_another_one() -> None:
    held: list[Any] = []

    def reply(agent: Agent, response: Any) -> None:
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.3.0", V2C.TimeTicks(len(held)))])
        held.append((agent.message, agent.address, agent.transport))
        if len(held) == 2:
            # The first answer comes only now, before the second.
            for message, _, transport in held:
                transport.sendto(encoder.encode(message), agent.address)

    async def run() -> tuple[Answer, Answer]:
        async with scripted(reply, timeout_s=0.05, retries=0) as session:
            return await session.get([f"{SYSTEM}.3.0"]), await session.get([f"{SYSTEM}.3.0"])

    first, second = asyncio.run(run())
    assert (first.timed_out, list(first.varbinds)) == (True, [])
    assert [v.value for v in second.varbinds] == [b"\x01"]


def test_garbage_foreign_communities_and_wrong_request_ids_are_dropped() -> None:
    def reply(agent: Agent, response: Any) -> None:
        request_id = V2C.apiPDU.get_request_id(response)
        agent.transport.sendto(b"\x30\x82\xff", agent.address)
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.3.0", V2C.Integer(1))])
        V2C.apiPDU.set_request_id(response, int(request_id) ^ 1)
        agent.send()
        V2C.apiPDU.set_request_id(response, request_id)
        V2C.apiMessage.set_community(agent.message, "other")
        agent.send()
        V2C.apiMessage.set_community(agent.message, "public")
        V2C.apiPDU.set_varbinds(response, [(f"{SYSTEM}.3.0", V2C.Integer(2))])
        agent.send()

    answer = asked(reply, "get", [f"{SYSTEM}.3.0"])
    assert [v.value for v in answer.varbinds] == [b"\x02"]


def test_close_ends_what_is_under_way() -> None:
    async def run() -> Answer:
        async with scripted(lambda agent, response: None, timeout_s=60) as session:
            task = asyncio.create_task(session.get([f"{SYSTEM}.3.0"]))
            await asyncio.sleep(0.05)
            session.close()
            return await task

    assert str(asyncio.run(run()).error).endswith("the poll was stopped")


sub_identifiers = st.integers(0, 2**32 - 1)
oids = st.tuples(st.integers(0, 2), st.integers(0, 39), st.lists(sub_identifiers, max_size=20).map(tuple)).map(
    lambda parts: (*parts[:2], *parts[2])
)


@given(oids)
def test_object_identifiers_decode_as_they_were_encoded(oid: tuple[int, ...]) -> None:
    encoded = encoder.encode(univ.ObjectIdentifier(oid))
    assert decode_oid(encoded[2:]) == ".".join(map(str, oid))


@pytest.mark.parametrize(("octets", "is_read"), [(640, True), (641, False)])
def test_longer_object_identifiers_than_there_can_be_are_refused(octets: int, is_read: bool) -> None:
    """Unbounded ones would take quadratic time, and be remembered."""
    content = b"\x2b" + b"\x01" * (octets - 1)
    if is_read:
        assert decode_oid(content).count(".") == octets
        return
    with pytest.raises(ValueError, match="has 641 octets; an SNMP object has at most 640"):
        decode_oid(content)


values = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(V2C.Integer),
    st.binary(max_size=300).map(V2C.OctetString),
    oids.map(V2C.ObjectIdentifier),
    st.binary(min_size=4, max_size=4).map(V2C.IpAddress),
    st.integers(0, 2**32 - 1).map(V2C.Counter32),
    st.integers(0, 2**32 - 1).map(V2C.TimeTicks),
    st.integers(0, 2**64 - 1).map(V2C.Counter64),
)


@given(st.lists(st.tuples(oids, values), max_size=30), st.integers(0, 2**31 - 1), st.sampled_from(["", "public", "ä"]))
def test_responses_are_cut_into_the_content_octets_of_their_values(
    varbinds: list[Any], request_id: int, community: str
) -> None:
    request = encode_request("2c", community.encode(), "get", ["1.3.6"], request_id)
    message = V2C.apiMessage.get_response(decoder.decode(request, asn1Spec=V2C.Message())[0])
    V2C.apiPDU.set_varbinds(V2C.apiMessage.get_pdu(message), varbinds)
    response = parse_response(encoder.encode(message), 5, "2c", community.encode())
    assert (response.request_id, response.error) == (request_id, "")
    assert len(response.varbinds) == len(varbinds)
    for found, (oid, value) in zip(response.varbinds, varbinds, strict=True):
        assert found.oid == ".".join(map(str, oid))
        assert encoder.encode(value).endswith(found.value)
        assert found.wire_type in (type(value).__name__, "Counter32", "Integer32")


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, 255))
def test_damaged_messages_are_refused_or_read_but_never_crash(noise: bytes, at: int, octet: int) -> None:
    whole = bytearray(encode_request("2c", b"public", "get", [f"{SYSTEM}.3.0"], 7))
    whole[whole.index(0xA0)] = 0xA2
    whole[min(at, len(whole) - 1)] = octet
    for data in (bytes(whole), noise, bytes(whole[:at])):
        try:
            parse_response(data, 0, "2c", b"public")
        except ValueError as error:
            assert str(error)


def test_the_message_of_a_length_that_is_a_lie() -> None:
    with pytest.raises(ValueError, match="element at octet 0 claims 5 octets, 1 are there"):
        parse_response(b"\x30\x05\x02", 0, "2c", b"public")
