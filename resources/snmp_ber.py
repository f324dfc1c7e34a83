"""The part of BER (X.690 section 8) that SNMP messages are made of, read and written.

The reader is our own because it gives the content octets of a value exactly as they were sent, and because it is what a
poll spends its time in.
"""

from functools import lru_cache

INTEGER, OCTET_STRING, NULL, OBJECT_IDENTIFIER, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30

_KNOWN_OIDS = 131_072
_LONGEST_OID = 128 * 5  # octets of 128 sub-identifiers of 32 bits (RFC 2578 section 3.5)
"""How many OIDs are remembered in both forms: polls ask for the same ones again and again."""


def read_element(data: bytes, start: int, end: int) -> tuple[int, int, int]:
    """Returns tag, start and end of the contents of the element at ``start`` (X.690 section 8.1).

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


def read_tagged(data: bytes, start: int, end: int, tag: int) -> tuple[int, int]:
    """Start and end of the contents of the element at ``start``; ValueError if it has another tag, or is none."""
    found, begin, stop = read_element(data, start, end)
    if found != tag:
        raise ValueError(f"element at octet {start} has the tag 0x{found:02x}, accepted is 0x{tag:02x}")
    return begin, stop


def read_integer(data: bytes, start: int, end: int) -> tuple[int, int]:
    """An INTEGER of up to 5 octets and where it ends; ValueError if there is none."""
    begin, stop = read_tagged(data, start, end, INTEGER)
    if not 1 <= stop - begin <= 5:
        raise ValueError(f"integer at octet {start} has {stop - begin} octets, accepted are 1 to 5")
    return int.from_bytes(data[begin:stop], "big", signed=True), stop


def read_octets(data: bytes, start: int, end: int) -> tuple[bytes, int]:
    """An OCTET STRING and where it ends; ValueError if there is none."""
    begin, stop = read_tagged(data, start, end, OCTET_STRING)
    return data[begin:stop], stop


@lru_cache(_KNOWN_OIDS)
def decode_oid(content: bytes) -> str:
    """Returns the dotted text of an OBJECT IDENTIFIER's content octets (X.690 section 8.19).

    Raises:
        ValueError: if the octets are none, end within a sub-identifier, or are more than an SNMP object can have.
    """
    if len(content) > _LONGEST_OID:
        raise ValueError(f"object identifier has {len(content)} octets; an SNMP object has at most {_LONGEST_OID}")
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


@lru_cache(_KNOWN_OIDS)
def sub_identifiers(oid: str) -> tuple[int, ...]:
    """The numbers of a dotted OID; they compare as OIDs do."""
    return tuple(map(int, oid.split(".")))


def element(tag: int, *contents: bytes) -> bytes:
    """An element with definite length."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def integer(value: int) -> bytes:
    """An INTEGER in the fewest octets."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(value: bytes) -> bytes:
    """An OCTET STRING."""
    return element(OCTET_STRING, value)


@lru_cache(_KNOWN_OIDS)
def object_identifier(oid: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted text.

    Raises:
        ValueError: if there are fewer than two numbers, or a text that is no number.
    """
    first, second, *rest = sub_identifiers(oid)
    return element(OBJECT_IDENTIFIER, *map(_sub_identifier, (40 * first + second, *rest)))


def _sub_identifier(value: int) -> bytes:
    found = [value & 0x7F]
    while value := value >> 7:
        found.append(0x80 | value & 0x7F)
    return bytes(reversed(found))
