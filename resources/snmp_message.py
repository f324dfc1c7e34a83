"""SNMP v1 and v2c messages (RFC 1157 section 4, RFC 3416 section 3): requests as octets, answers as varbinds.

Requests are encoded by pysnmp. Answers are cut by a reader of our own: it gives the content octets exactly as they were
sent, where pyasn1 normalises them.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pyasn1.codec.ber import encoder
from pyasn1.type.univ import OctetString
from pysnmp.proto import api

Version = Literal["1", "2c"]
Operation = Literal["get", "next", "bulk"]

NO_SUCH_NAME = "noSuchName"
END_OF_MIB_VIEW = "endOfMibView"

_INTEGER, _OCTET_STRING, _OBJECT_IDENTIFIER, _SEQUENCE, _RESPONSE = 0x02, 0x04, 0x06, 0x30, 0xA2
_WIRE_TYPES = {
    _INTEGER: "Integer32",
    _OCTET_STRING: "OctetString",
    0x05: "Null",
    _OBJECT_IDENTIFIER: "ObjectIdentifier",
    0x40: "IpAddress",
    0x41: "Counter32",
    0x42: "Gauge32",  # Unsigned32 has the same tag (RFC 2578 section 7.1.7)
    0x43: "TimeTicks",
    0x44: "Opaque",
    0x46: "Counter64",
    0x80: "noSuchObject",
    0x81: "noSuchInstance",
    0x82: END_OF_MIB_VIEW,
}
# In the order of RFC 3416 section 3.
_ERROR_STATUS = (
    *("noError", "tooBig", NO_SUCH_NAME, "badValue", "readOnly", "genErr", "noAccess", "wrongType", "wrongLength"),
    *("wrongEncoding", "wrongValue", "noCreation", "inconsistentValue", "resourceUnavailable", "commitFailed"),
    *("undoFailed", "authorizationError", "notWritable", "inconsistentName"),
)
_MODULES = {version: api.PROTOCOL_MODULES[number] for version, number in (("1", 0), ("2c", 1))}
_PDUS = {"get": "GetRequestPDU", "next": "GetNextRequestPDU", "bulk": "GetBulkRequestPDU"}


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
    """A GetResponse PDU and the wrapper it came in."""

    version: int
    community: bytes
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


def encode_request(
    version: Version, community: bytes, operation: Operation, oids: Sequence[str], request_id: int, rows: int = 0
) -> bytes:
    """Returns the message that asks for ``oids``; ``rows`` is the max-repetitions of a bulk request."""
    module = _MODULES[version]
    pdu = getattr(module, _PDUS[operation])()
    face = module.apiBulkPDU if operation == "bulk" else module.apiPDU
    face.set_defaults(pdu)
    face.set_request_id(pdu, request_id)
    if operation == "bulk":
        face.set_max_repetitions(pdu, rows)
    face.set_varbinds(pdu, [(oid, module.null) for oid in oids])
    message = module.Message()
    module.apiMessage.set_defaults(message)
    module.apiMessage.set_community(message, OctetString(community))
    module.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


def parse_response(data: bytes, received_at_us: int) -> Response:
    """Reads a message that holds a GetResponse PDU.

    Raises:
        ValueError: if it is none.
    """
    at, end = _element(data, 0, len(data), _SEQUENCE)
    version, at = _integer(data, at, end)
    begin, at = _element(data, at, end, _OCTET_STRING)
    community = data[begin:at]
    at, end = _element(data, at, end, _RESPONSE)
    request_id, at = _integer(data, at, end)
    status, at = _integer(data, at, end)
    index, at = _integer(data, at, end)
    at, end = _element(data, at, end, _SEQUENCE)
    varbinds = [Varbind(*binding, request_id, received_at_us) for binding in _bindings(data, at, end)]
    return Response(version, community, request_id, status, index, received_at_us, varbinds)


def decode_oid(content: bytes) -> str:
    """Returns the dotted text of an OBJECT IDENTIFIER's content octets (X.690 section 8.19).

    Raises:
        ValueError: if the octets are none or end within a sub-identifier.
    """
    if not content or content[-1] & 0x80:
        raise ValueError(f"object identifier 0x{content.hex()} is empty or ends within a sub-identifier")
    parts, value = [], 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            parts.append(value)
            value = 0
    first = min(parts[0] // 40, 2)
    return ".".join(map(str, (first, parts[0] - 40 * first, *parts[1:])))


def _read_element(data: bytes, start: int, end: int) -> tuple[int, int, int]:
    """Returns tag, start and end of the contents of the BER element at ``start`` (X.690 section 8.1).

    Raises:
        ValueError: if the element does not end by ``end``, or its length is not definite.
    """
    if start + 2 > end:
        raise ValueError(f"element at octet {start} is cut off")
    tag, length, at = data[start], data[start + 1], start + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or at + size > end:
            raise ValueError(f"element at octet {start} has no definite length")
        length = int.from_bytes(data[at : at + size], "big")
        at += size
    if at + length > end:
        raise ValueError(f"element at octet {start} claims {length} octets, {end - at} are there")
    return tag, at, at + length


def _element(data: bytes, start: int, end: int, tag: int) -> tuple[int, int]:
    found, begin, stop = _read_element(data, start, end)
    if found != tag:
        raise ValueError(f"element at octet {start} has the tag 0x{found:02x}, accepted is 0x{tag:02x}")
    return begin, stop


def _integer(data: bytes, start: int, end: int) -> tuple[int, int]:
    begin, stop = _element(data, start, end, _INTEGER)
    if not 1 <= stop - begin <= 5:
        raise ValueError(f"integer at octet {start} has {stop - begin} octets, accepted are 1 to 5")
    return int.from_bytes(data[begin:stop], "big", signed=True), stop


def _bindings(data: bytes, start: int, end: int) -> Iterator[tuple[str, str, bytes]]:
    while start < end:
        begin, stop = _element(data, start, end, _SEQUENCE)
        name_begin, name_stop = _element(data, begin, stop, _OBJECT_IDENTIFIER)
        tag, value_begin, value_stop = _read_element(data, name_stop, stop)
        wire_type = _WIRE_TYPES.get(tag, f"0x{tag:02x}")
        yield decode_oid(data[name_begin:name_stop]), wire_type, data[value_begin:value_stop]
        start = stop
