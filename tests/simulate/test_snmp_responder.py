"""The answers of the simulated agents, on bytes: GET, GETNEXT, GETBULK, their exceptions, and garbage."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c

from pipelines.simulate.snmp_devices import Objects, pdu, server, switch, ups
from pipelines.simulate.snmp_responder import MAX_BYTES, Mib, answer
from resources.errors import ConfigurationError

OBJECTS: Objects = {
    "1.3.6.1.2.1.1.1.0": ("OctetString", "thing"),
    "1.3.6.1.2.1.1.3.0": ("TimeTicks", lambda t: int(t * 100)),
    "1.3.6.1.2.1.2.2.1.10.1": ("Counter32", lambda t: 2**32 + 5),
    "1.3.6.1.2.1.2.2.1.10.2": ("Counter32", 7),
    "1.3.6.1.2.1.2.2.1.10.10": ("Counter32", 8),
    "1.3.6.1.2.1.31.1.1.1.6.1": ("Counter64", 2**32 + 5),
    "1.3.6.1.2.1.4.20.1.1.1": ("IpAddress", "10.0.0.1"),
}
REQUESTS = {"get": v2c.GetRequestPDU, "next": v2c.GetNextRequestPDU, "bulk": v2c.GetBulkRequestPDU}
EXCEPTIONS = ("NoSuchObject", "NoSuchInstance", "EndOfMibView")


def oid(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def request(kind: Any, *oids: str, community: bytes = b"public", bulk: tuple[int, int] | None = None) -> bytes:
    message, body = v2c.Message(), kind()
    v2c.apiMessage.set_defaults(message)
    v2c.apiMessage.set_community(message, community)
    api = v2c.apiPDU if bulk is None else v2c.apiBulkPDU
    api.set_defaults(body)
    api.set_request_id(body, 77)
    if bulk is not None:
        api.set_non_repeaters(body, bulk[0])
        api.set_max_repetitions(body, bulk[1])
    api.set_varbinds(body, [(oid(text), v2c.null) for text in oids])
    v2c.apiMessage.set_pdu(message, body)
    return bytes(encoder.encode(message))


def ask(objects: Objects, datagram: bytes, t: float = 1.5) -> tuple[int, list[tuple[str, str, str]]]:
    """Error status, and OID, wire type and text of each variable binding of the answer."""
    sent = answer(Mib(objects), datagram, t)
    assert sent is not None
    assert sent.request_id == 77
    message, rest = decoder.decode(sent.payload, asn1Spec=v2c.Message())
    body = v2c.apiMessage.get_pdu(message)
    assert (rest, int(v2c.apiPDU.get_request_id(body))) == (b"", 77)
    found = [
        (".".join(map(str, name)), type(value).__name__, value.prettyPrint())
        for name, value in v2c.apiPDU.get_varbinds(body)
    ]
    assert [name for _, name in sent.oids] == [name for name, kind, _ in found if kind not in EXCEPTIONS]
    return int(v2c.apiPDU.get_error_status(body)), found


def test_get_answers_values_with_their_wire_types_wrapped_to_their_width() -> None:
    assert ask(OBJECTS, request(v2c.GetRequestPDU, *OBJECTS)) == (
        0,
        [
            ("1.3.6.1.2.1.1.1.0", "OctetString", "thing"),
            ("1.3.6.1.2.1.1.3.0", "TimeTicks", "150"),
            ("1.3.6.1.2.1.2.2.1.10.1", "Counter32", "5"),
            ("1.3.6.1.2.1.2.2.1.10.2", "Counter32", "7"),
            ("1.3.6.1.2.1.2.2.1.10.10", "Counter32", "8"),
            ("1.3.6.1.2.1.31.1.1.1.6.1", "Counter64", str(2**32 + 5)),
            ("1.3.6.1.2.1.4.20.1.1.1", "IpAddress", "10.0.0.1"),
        ],
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("1.3.6.1.2.1.1.1.1", "NoSuchInstance"),
        ("1.3.6.1.2.1.1.1", "NoSuchInstance"),
        ("1.3.6.1.2.1.2.2.1.10.3", "NoSuchInstance"),
        ("1.3.6.1.2.1.1.2.0", "NoSuchObject"),
        ("1.3.6.1.2.1.2", "NoSuchObject"),
        ("1.3.6.1.9", "NoSuchObject"),
    ],
)
def test_get_tells_a_missing_instance_from_a_missing_object(name: str, kind: str) -> None:
    status, found = ask(OBJECTS, request(v2c.GetRequestPDU, name, "1.3.6.1.2.1.1.1.0"))
    assert (status, [row[:2] for row in found]) == (0, [(name, kind), ("1.3.6.1.2.1.1.1.0", "OctetString")])


def test_getnext_goes_in_numeric_order_and_ends() -> None:
    _, found = ask(OBJECTS, request(v2c.GetNextRequestPDU, "1.3", "1.3.6.1.2.1.2.2.1.10.2", "1.3.6.1.2.1.31.1.1.1.6.1"))
    assert [row[:2] for row in found] == [
        ("1.3.6.1.2.1.1.1.0", "OctetString"),
        ("1.3.6.1.2.1.2.2.1.10.10", "Counter32"),
        ("1.3.6.1.2.1.31.1.1.1.6.1", "EndOfMibView"),
    ]


def test_getbulk_repeats_all_but_the_non_repeaters() -> None:
    names = ("1.3.6.1.2.1.1.1", "1.3.6.1.2.1.2.2.1.10", "1.3.6.1.2.1.4.20.1.1.1")
    _, found = ask(OBJECTS, request(v2c.GetBulkRequestPDU, *names, bulk=(1, 3)))
    assert [row[0] for row in found] == [
        "1.3.6.1.2.1.1.1.0",
        "1.3.6.1.2.1.2.2.1.10.1",
        "1.3.6.1.2.1.31.1.1.1.6.1",
        "1.3.6.1.2.1.2.2.1.10.2",
        "1.3.6.1.2.1.31.1.1.1.6.1",
        "1.3.6.1.2.1.2.2.1.10.10",
        "1.3.6.1.2.1.31.1.1.1.6.1",
    ]
    assert [row[1] for row in found[4::2]] == ["EndOfMibView", "EndOfMibView"]


def test_each_answered_oid_names_the_requested_one() -> None:
    system, octets = "1.3.6.1.2.1.1", "1.3.6.1.2.1.2.2.1.10"
    sent = answer(Mib(OBJECTS), request(v2c.GetBulkRequestPDU, system, octets, bulk=(0, 2)), 0.0)
    assert sent is not None
    assert sent.oids == (
        (system, f"{system}.1.0"),
        (octets, f"{octets}.1"),
        (system, f"{system}.3.0"),
        (octets, f"{octets}.2"),
    )
    sent = answer(Mib(OBJECTS), request(v2c.GetRequestPDU, f"{octets}.2", f"{octets}.9"), 0.0)
    assert sent is not None
    assert sent.oids == ((f"{octets}.2", f"{octets}.2"),)


@pytest.mark.parametrize("bulk", [(5, 0), (2, 10), (2**31 - 1, 2**31 - 1)])
def test_getbulk_takes_any_counts(bulk: tuple[int, int]) -> None:
    status, found = ask(OBJECTS, request(v2c.GetBulkRequestPDU, "1.3", "1.3.6.1.2.1.2", bulk=bulk))
    assert (status, len(found)) == (0, 2)


def test_a_long_bulk_answer_is_cut_to_one_frame_and_a_long_get_is_too_big() -> None:
    objects: Objects = {f"1.3.6.1.4.1.1.{n}": ("OctetString", "x" * 200) for n in range(1, 30)}
    datagram = request(v2c.GetBulkRequestPDU, "1.3", bulk=(0, 25))
    status, found = ask(objects, datagram)
    assert (status, 2 < len(found) < 10) == (0, True)
    sent = answer(Mib(objects), datagram, 0.0)
    assert sent is not None
    assert len(sent.payload) <= MAX_BYTES
    assert ask(objects, request(v2c.GetRequestPDU, *objects)) == (1, [])


@pytest.mark.parametrize("objects", [switch(0), ups(0), pdu(0), server(0)], ids=["switch", "ups", "pdu", "server"])
def test_a_walk_by_getnext_visits_every_object_of_a_device_once(objects: Objects) -> None:
    mib, names = Mib(objects), []
    at: tuple[int, ...] = (1,)
    while (found := mib.after(at, 10.0))[0] != at:
        at = found[0]
        names.append(".".join(map(str, at)))
    assert isinstance(found[1], v2c.EndOfMibView)
    assert sorted(names, key=oid) == names
    assert set(names) == set(objects)


def test_other_requests_versions_and_communities_are_not_answered() -> None:
    mib, name = Mib(OBJECTS), "1.3.6.1.2.1.1.1.0"
    good = request(v2c.GetRequestPDU, name)
    assert answer(mib, good, 0.0) is not None
    assert answer(mib, request(v2c.GetRequestPDU, name, community=b"private"), 0.0) is None
    assert answer(mib, request(v2c.SetRequestPDU, name), 0.0) is None
    assert answer(mib, good.replace(b"\x02\x01\x01", b"\x02\x01\x00", 1), 0.0) is None
    assert answer(mib, good + b"\x00", 0.0) is None


@settings(max_examples=300)
@given(st.data())
def test_no_datagram_breaks_the_agent(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(REQUESTS)))
    datagram = bytearray(request(REQUESTS[kind], *OBJECTS, bulk=(1, 5) if kind == "bulk" else None))
    for _ in range(data.draw(st.integers(1, 3))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(datagram)))
    for mutated in (bytes(datagram), bytes(datagram[:cut])):
        sent = answer(Mib(OBJECTS), mutated, 0.0)
        assert sent is None or len(sent.payload) <= MAX_BYTES


def test_an_unknown_wire_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"object 1\.3\.6: wire type must be of .*, got 'Integer64'"):
        Mib({"1.3.6": ("Integer64", 1)})
