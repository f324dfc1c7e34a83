"""Traps and INFORMs of all versions, from a datagram to one shape (v1 as RFC 3584 section 3.1 maps it to v2).

RFC 1157 section 4.1.6 (Trap-PDU), RFC 3416 section 4.2.6 (SNMPv2-Trap-PDU) and 4.2.7 (InformRequest-PDU).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from resources.snmp_ber import (
    OBJECT_IDENTIFIER,
    SEQUENCE,
    decode_oid,
    read_element,
    read_integer,
    read_octets,
    read_tagged,
)
from resources.snmp_message import RESPONSE, Varbind, read_varbinds
from resources.snmp_usm import ScopedPdu, UsmError, UsmKeys, UsmUser, localize, open_message, parse_message

V1_TRAP, INFORM, V2_TRAP = 0xA4, 0xA6, 0xA7

_VERSIONS = {0: "1", 1: "2c", 3: "3"}
_UPTIME, _TRAP_OID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.6.3.1.1.4.1.0"
_TRAP_ENTERPRISE, _TRAP_ADDRESS = "1.3.6.1.6.3.1.1.4.3.0", "1.3.6.1.6.3.18.1.3.0"
_GENERIC_TRAPS = "1.3.6.1.6.3.1.1.5"
_ENTERPRISE_SPECIFIC = 6
_IP_ADDRESS, _TIME_TICKS = 0x40, 0x43
_NO_ADDRESS = "0.0.0.0"
_LEVEL = 0x03
_REASONS = {
    "unknownUserNames": "unknown_user",
    "wrongDigests": "wrong_digest",
    "decryptionErrors": "decryption_error",
    "unsupportedSecLevels": "unsupported_level",
}


class NotificationError(ValueError):
    """A datagram that is no notification that can be read; ``reason`` is its code in quarantine."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Notification(NamedTuple):
    """A trap or an INFORM. ``pdu`` are its octets, without what a resending changes; varbinds as they were sent.

    ``agent_address`` is what a v1 trap says, or a proxy about one (RFC 3584 section 3.1); None where nothing is said.
    """

    version: str
    is_inform: bool
    user: str | None
    engine_id: str | None
    context: str | None
    request_id: int | None
    uptime_ticks: int | None
    trap_oid: str
    agent_address: str | None
    enterprise_oid: str | None
    generic_trap: int | None
    specific_trap: int | None
    varbinds: list[Varbind]
    pdu: bytes


class Envelope(NamedTuple):
    """Where the PDU of a v1 or v2c message is: its tag stands at ``at`` of the datagram."""

    version: int
    at: int
    end: int


def read_envelope(datagram: bytes) -> Envelope:
    """The wrapper of a message; of a v3 message only the version is read.

    Raises:
        ValueError: if it is none.
    """
    at, end = read_tagged(datagram, 0, len(datagram), SEQUENCE)
    version, at = read_integer(datagram, at, end)
    if version not in _VERSIONS:
        raise ValueError(f"the message has the version number {version}, accepted are 0 (v1), 1 (v2c) and 3")
    if version == 3:
        return Envelope(version, 0, 0)
    _, at = read_octets(datagram, at, end)
    _, _, end = read_element(datagram, at, end)
    return Envelope(version, at, end)


def response_to(data: bytes, at: int, end: int) -> bytes:
    """The Response-PDU to the InformRequest-PDU at ``at``: the same but for its tag (RFC 3416 section 4.2.7)."""
    return bytes((RESPONSE,)) + data[at + 1 : end]


def read_notification(datagram: bytes, users: Mapping[str, Sequence[UsmUser]]) -> Notification:
    """Reads a datagram; a v3 message is verified and decrypted with the keys of its user.

    Args:
        datagram: as it came.
        users: by name; of several of one name, the first whose signature fits is taken.

    Raises:
        NotificationError: it cannot be read. Reasons: not_snmp, not_a_notification, unknown_user, wrong_digest,
            decryption_error, unsupported_level.
    """
    try:
        envelope = read_envelope(datagram)
        if envelope.version != 3:
            return _notification(envelope.version, datagram, envelope.at, envelope.end)
        scoped, keys = open_v3(datagram, users)
        found = _notification(3, scoped.data, scoped.at, scoped.end)
        context = scoped.context.decode("utf-8", "replace")
        return found._replace(user=keys.user.name, engine_id=keys.engine_id.hex(), context=context)
    except UsmError as error:
        raise NotificationError(_REASONS.get(error.reason, "not_snmp"), str(error)) from error
    except NotificationError:
        raise
    except ValueError as error:
        raise NotificationError("not_snmp", str(error)) from error


def open_v3(datagram: bytes, users: Mapping[str, Sequence[UsmUser]]) -> tuple[ScopedPdu, UsmKeys]:
    """The scoped PDU of a v3 message, and the keys that opened it; a message has its user's level, not a lower one.

    Raises:
        UsmError: see ``resources.snmp_usm.open_message``; also ``unknownUserNames``.
        ValueError: it is no such message.
    """
    message = parse_message(datagram)
    name = message.user.decode("utf-8", "replace")
    if not (candidates := users.get(name)):
        raise UsmError("unknownUserNames", f"the user {name!r} is not among the users of [snmp_traps]")
    problem: UsmError | None = None
    for user in candidates:
        if message.flags & _LEVEL != user.flags:
            problem = problem or UsmError(
                "unsupportedSecLevels", f"the message has the security level {message.flags & _LEVEL}, not its user's"
            )
            continue
        keys = localize(user, message.engine_id)
        try:
            return open_message(message, keys), keys
        except UsmError as error:
            problem = error
    assert problem is not None
    raise problem


def _notification(version: int, data: bytes, at: int, end: int) -> Notification:
    tag, begin, stop = read_element(data, at, end)
    pdu = data[at:stop]
    if tag == V1_TRAP and version == 0:
        return _v1(data, begin, stop, pdu)
    if tag not in (V2_TRAP, INFORM) or version == 0:
        raise NotificationError(
            "not_a_notification", f"PDU with the tag 0x{tag:02x} in a message of v{_VERSIONS[version]}"
        )
    request_id, begin = read_integer(data, begin, stop)
    _, begin = read_integer(data, begin, stop)
    _, begin = read_integer(data, begin, stop)
    begin, stop = read_tagged(data, begin, stop, SEQUENCE)
    varbinds = read_varbinds(data, begin, stop, request_id, 0)
    said = {v.oid: v for v in varbinds}
    identity, uptime = said.get(_TRAP_OID), said.get(_UPTIME)
    if identity is None or identity.wire_type != "ObjectIdentifier":
        raise NotificationError("not_a_notification", f"no snmpTrapOID.0 among its {len(varbinds)} varbinds")
    enterprise, address = said.get(_TRAP_ENTERPRISE), said.get(_TRAP_ADDRESS)
    return Notification(
        version=_VERSIONS[version],
        is_inform=tag == INFORM,
        user=None,
        engine_id=None,
        context=None,
        request_id=request_id,
        uptime_ticks=int.from_bytes(uptime.value, "big") if uptime and 0 < len(uptime.value) <= 5 else None,
        trap_oid=decode_oid(identity.value),
        agent_address=_address(address.value) if address and address.wire_type == "IpAddress" else None,
        enterprise_oid=_oid_text(enterprise),
        generic_trap=None,
        specific_trap=None,
        varbinds=[v for v in varbinds if v.oid not in (_UPTIME, _TRAP_OID)],
        pdu=pdu,
    )


def _v1(data: bytes, at: int, end: int, pdu: bytes) -> Notification:
    begin, at = read_tagged(data, at, end, OBJECT_IDENTIFIER)
    enterprise = decode_oid(data[begin:at])
    begin, at = read_tagged(data, at, end, _IP_ADDRESS)
    address = _address(data[begin:at])
    generic, at = read_integer(data, at, end)
    specific, at = read_integer(data, at, end)
    begin, at = read_tagged(data, at, end, _TIME_TICKS)
    uptime = int.from_bytes(data[begin:at], "big")
    at, end = read_tagged(data, at, end, SEQUENCE)
    if generic == _ENTERPRISE_SPECIFIC:
        trap_oid = f"{enterprise}.0.{specific & 0xFFFFFFFF}"
    elif 0 <= generic < _ENTERPRISE_SPECIFIC:
        trap_oid = f"{_GENERIC_TRAPS}.{generic + 1}"
    else:
        raise NotificationError("not_a_notification", f"generic-trap {generic}, RFC 1157 has 0 to 6")
    return Notification(
        version="1",
        is_inform=False,
        user=None,
        engine_id=None,
        context=None,
        request_id=None,
        uptime_ticks=uptime & 0xFFFFFFFF,
        trap_oid=trap_oid,
        agent_address=None if address == _NO_ADDRESS else address,
        enterprise_oid=enterprise,
        generic_trap=generic,
        specific_trap=specific,
        varbinds=read_varbinds(data, at, end, 0, 0),
        pdu=pdu,
    )


def _address(octets: bytes) -> str | None:
    return ".".join(map(str, octets)) if len(octets) == 4 else None


def _oid_text(varbind: Varbind | None) -> str | None:
    return decode_oid(varbind.value) if varbind and varbind.wire_type == "ObjectIdentifier" else None
