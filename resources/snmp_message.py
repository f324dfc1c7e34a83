"""SNMP PDUs, and the messages of v1 and v2c (RFC 1157 section 4, RFC 3416 section 3).

The messages of v3 are those of ``resources.snmp_usm``.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from resources.snmp_ber import (
    NULL,
    OBJECT_IDENTIFIER,
    SEQUENCE,
    decode_oid,
    element,
    integer,
    object_identifier,
    octets,
    read_element,
    read_integer,
    read_octets,
    read_tagged,
)

Version = Literal["1", "2c", "3"]
Operation = Literal["get", "next", "bulk"]

NO_SUCH_NAME = "noSuchName"
END_OF_MIB_VIEW = "endOfMibView"
VERSION_NUMBERS: dict[Version, int] = {"1": 0, "2c": 1, "3": 3}
RESPONSE, REPORT = 0xA2, 0xA8

_OPERATIONS: dict[Operation, int] = {"get": 0xA0, "next": 0xA1, "bulk": 0xA5}
_OPAQUE = 0x44
_WIRE_TYPES = {
    0x02: "Integer32",
    0x04: "OctetString",
    0x05: "Null",
    0x06: "ObjectIdentifier",
    0x40: "IpAddress",
    0x41: "Counter32",
    0x42: "Gauge32",  # Unsigned32 has the same tag (RFC 2578 section 7.1.7)
    0x43: "TimeTicks",
    _OPAQUE: "Opaque",
    0x46: "Counter64",
    0x80: "noSuchObject",
    0x81: "noSuchInstance",
    0x82: END_OF_MIB_VIEW,
}
# What net-snmp puts into an Opaque: a context-specific tag, then the number (draft-perkins-opaque-01).
_OPAQUE_TYPES = {b"\x9f\x78\x04": ("OpaqueFloat", 7), b"\x9f\x79\x08": ("OpaqueDouble", 11)}
# In the order of RFC 3416 section 3.
_ERROR_STATUS = (
    *("noError", "tooBig", NO_SUCH_NAME, "badValue", "readOnly", "genErr", "noAccess", "wrongType", "wrongLength"),
    *("wrongEncoding", "wrongValue", "noCreation", "inconsistentValue", "resourceUnavailable", "commitFailed"),
    *("undoFailed", "authorizationError", "notWritable", "inconsistentName"),
)
_NULL = element(NULL)


class Varbind(NamedTuple):
    """A variable binding as it was answered.

    ``value`` holds the content octets of the value's BER encoding (X.690 section 8). Where an agent answers a whole
    request with the error noSuchName, the object it names is a varbind of the wire type ``noSuchName``.
    """

    oid: str
    wire_type: str
    value: bytes
    request_id: int
    received_at_us: int


class Response(NamedTuple):
    """A GetResponse or Report PDU (``tag`` tells which)."""

    tag: int
    request_id: int
    error_status: int
    error_index: int
    received_at_us: int
    varbinds: list[Varbind]

    @property
    def error(self) -> str:
        """Name of the error-status; empty for none."""
        if 0 <= self.error_status < len(_ERROR_STATUS):
            return _ERROR_STATUS[self.error_status] if self.error_status else ""
        return f"error-status {self.error_status}"


def encode_pdu(operation: Operation, oids: Sequence[str], request_id: int, rows: int = 0) -> bytes:
    """Returns the PDU that asks for ``oids``; ``rows`` is the max-repetitions of a bulk request."""
    bindings = (element(SEQUENCE, object_identifier(oid), _NULL) for oid in oids)
    numbers = (integer(request_id), integer(0), integer(rows if operation == "bulk" else 0))
    return element(_OPERATIONS[operation], *numbers, element(SEQUENCE, *bindings))


def encode_request(
    version: Version, community: bytes, operation: Operation, oids: Sequence[str], request_id: int, rows: int = 0
) -> bytes:
    """Returns the v1 or v2c message that asks for ``oids``; ``rows`` is the max-repetitions of a bulk request."""
    pdu = encode_pdu(operation, oids, request_id, rows)
    return element(SEQUENCE, integer(VERSION_NUMBERS[version]), octets(community), pdu)


def parse_response(data: bytes, received_at_us: int, version: Version, community: bytes) -> Response:
    """Reads a v1 or v2c message that holds a GetResponse PDU.

    Raises:
        ValueError: if it is none, or of another version or community.
    """
    at, end = read_tagged(data, 0, len(data), SEQUENCE)
    found, at = read_integer(data, at, end)
    if found != VERSION_NUMBERS[version]:
        raise ValueError(f"the message has version {found}, asked was in version {VERSION_NUMBERS[version]}")
    name, at = read_octets(data, at, end)
    if name != community:
        raise ValueError("the message has another community than the request")
    return parse_pdu(data, at, end, received_at_us)


def parse_pdu(data: bytes, at: int, end: int, received_at_us: int) -> Response:
    """Reads the GetResponse or Report PDU at ``at``.

    Raises:
        ValueError: if there is none.
    """
    tag, at, end = read_element(data, at, end)
    if tag not in (RESPONSE, REPORT):
        raise ValueError(f"PDU with the tag 0x{tag:02x}, accepted are GetResponse and Report")
    request_id, at = read_integer(data, at, end)
    status, at = read_integer(data, at, end)
    index, at = read_integer(data, at, end)
    at, end = read_tagged(data, at, end, SEQUENCE)
    varbinds = read_varbinds(data, at, end, request_id, received_at_us)
    return Response(tag, request_id, status, index, received_at_us, varbinds)


def read_varbinds(data: bytes, at: int, end: int, request_id: int, received_at_us: int) -> list[Varbind]:
    """The variable bindings between ``at`` and ``end``; ValueError if they are none."""
    found: list[Varbind] = []
    while at < end:
        tag, name, content, at = _short_binding(data, at, end) or _binding(data, at, end)
        wire_type = _WIRE_TYPES.get(tag) or f"0x{tag:02x}"
        if tag == _OPAQUE:
            wire_type = opaque_type(content)
        found.append(Varbind(decode_oid(name), wire_type, content, request_id, received_at_us))
    return found


def _short_binding(data: bytes, at: int, end: int) -> tuple[int, bytes, bytes, int] | None:
    """What ``_binding`` reads, where all lengths are of one octet, as they mostly are; else None.

    A poll spends its time here, so that it is written out.
    """
    stop = at + 2 + data[at + 1] if at + 4 < end else end + 1
    if stop > end or data[at] != SEQUENCE or data[at + 1] > 0x7F or data[at + 2] != OBJECT_IDENTIFIER:
        return None
    value = at + 4 + data[at + 3]
    if data[at + 3] > 0x7F or value + 2 > stop or value + 2 + data[value + 1] != stop:
        return None
    return data[value], data[at + 4 : value], data[value + 2 : stop], stop


def _binding(data: bytes, at: int, end: int) -> tuple[int, bytes, bytes, int]:
    """Tag of the value, content octets of the name and of the value, and where the binding ends."""
    begin, stop = read_tagged(data, at, end, SEQUENCE)
    name, name_end = read_tagged(data, begin, stop, OBJECT_IDENTIFIER)
    tag, value, value_end = read_element(data, name_end, stop)
    return tag, data[name:name_end], data[value:value_end], stop


def opaque_type(content: bytes) -> str:
    """``OpaqueFloat`` or ``OpaqueDouble`` where an Opaque's octets hold one, else ``Opaque``."""
    name, size = _OPAQUE_TYPES.get(content[:3], ("Opaque", len(content)))
    return name if len(content) == size else "Opaque"
