"""Reading MQTT control packets from a stream of bytes (MQTT 3.1.1 and 5.0, sections 1.5, 2 and 3).

A collector receives hundreds of thousands of PUBLISH packets for one of any other kind, so these are taken apart here,
many at a time; the others are handed on as they are.
"""

from dataclasses import dataclass, field

from resources.mqtt_properties import properties_text

_PUBLISH, _PUBREL = 3, 6
_PUBACK, _PUBREC, _PUBCOMP = b"\x40\x02", b"\x50\x02", b"\x70\x02"
_LENGTH_BYTES = 4  # of the remaining length (section 2.2.3)
_MOST_TOPICS = 10_000


class MalformedPacketError(ValueError):
    """What came is no MQTT: the connection cannot go on (MQTT 5.0 section 4.13)."""


@dataclass
class Arrived:
    """The whole packets of one reading.

    The first four are the columns of the messages (PUBLISH) as they were delivered; ``properties`` has what
    ``resources.mqtt_properties`` says of those that came with any, by their place. ``acknowledgements`` holds the
    PUBACK (QoS 1) and PUBREC (QoS 2) packets that the messages ask for, to be sent once they are durable;
    ``completions`` the PUBCOMP packets, which may be sent at once. ``others`` are first byte and body of the rest.
    """

    topics: list[str] = field(default_factory=list)
    qos: list[int] = field(default_factory=list)
    retain: list[bool] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    properties: dict[int, str] = field(default_factory=dict)
    acknowledgements: bytearray = field(default_factory=bytearray)
    completions: bytearray = field(default_factory=bytearray)
    others: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def owed(self) -> int:
        """How many of the messages are to be acknowledged."""
        return len(self.acknowledgements) // 4


class PacketReader:
    """Cuts a stream into packets; what is left of a packet waits for its rest."""

    def __init__(self, *, is_v5: bool) -> None:
        self._is_v5 = is_v5
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = 2
        self._topics: dict[bytes, str] = {}

    def feed(self, data: bytes) -> Arrived:
        """Returns the packets that are whole now.

        Raises:
            MalformedPacketError: nothing that follows can be read.
        """
        self._chunks.append(data)
        self._held += len(data)
        arrived = Arrived()
        # A large message comes in many chunks; joining them each time would take quadratic time.
        if self._held >= self._wanted:
            buffer = b"".join(self._chunks)
            try:
                rest = buffer[self._parse(buffer, arrived) :]
            except IndexError as error:
                raise MalformedPacketError("a packet is shorter than what it says it holds") from error
            self._chunks, self._held = [rest], len(rest)
        return arrived

    def _parse(self, buffer: bytes, arrived: Arrived) -> int:
        """Takes the packets from ``buffer``; returns where the first that is not whole begins."""
        topics, levels, flags, payloads = arrived.topics, arrived.qos, arrived.retain, arrived.payloads
        acknowledgements, known = arrived.acknowledgements, self._topics
        position, end = 0, len(buffer)
        self._wanted = 2
        while end - position >= 2:
            first, length, start = buffer[position], buffer[position + 1], position + 2
            if length > 127:
                if position + 2 < end and buffer[position + 2] < 128:  # as most packets have it
                    length, start = length & 127 | buffer[position + 2] << 7, position + 3
                else:
                    length, start = _remaining_length(buffer, position + 1)
                if not start:
                    self._wanted = end - position + 1
                    break
            stop = start + length
            if stop > end:
                self._wanted = stop - position
                break
            if first >> 4 == _PUBLISH:
                body = start + 2 + (buffer[start] << 8 | buffer[start + 1])
                name = buffer[start + 2 : body]
                qos = first >> 1 & 3
                if qos:
                    if qos == 3:
                        raise MalformedPacketError("a PUBLISH has QoS 3")
                    acknowledgements += _PUBACK if qos == 1 else _PUBREC
                    acknowledgements += buffer[body : body + 2]
                    body += 2
                described = None
                if self._is_v5:
                    if buffer[body]:
                        described, body = _properties_at(buffer, body)
                    else:
                        body += 1
                if body > stop:
                    raise MalformedPacketError("a PUBLISH is shorter than its topic and properties")
                topics.append(known.get(name) or self._topic(name))
                levels.append(qos)
                flags.append(first & 1 == 1)
                if described:
                    arrived.properties[len(payloads)] = described
                payloads.append(buffer[body:stop])
            elif first >> 4 == _PUBREL and length >= 2:
                arrived.completions += _PUBCOMP + buffer[start : start + 2]
            else:
                arrived.others.append((first, buffer[start:stop]))
            position = stop
        return position

    def _topic(self, name: bytes) -> str:
        if len(self._topics) >= _MOST_TOPICS:
            self._topics.clear()
        # Ill-formed UTF-8 is against the standard (1.5.3); the message is kept, its topic legible.
        return self._topics.setdefault(name, name.decode(errors="backslashreplace"))


def _remaining_length(buffer: bytes, position: int) -> tuple[int, int]:
    """The variable byte integer at ``position`` and where it ends; the end is 0 if it is not whole."""
    value = 0
    for index in range(_LENGTH_BYTES):
        if position + index >= len(buffer):
            return 0, 0
        byte = buffer[position + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise MalformedPacketError("a remaining length has more than four bytes")


def _properties_at(buffer: bytes, position: int) -> tuple[str | None, int]:
    """What the properties at ``position`` say, and where they end; behind the buffer if they are not whole."""
    length, start = _remaining_length(buffer, position)
    if not start or start + length > len(buffer):
        return None, len(buffer) + 1
    return properties_text(buffer[start : start + length]), start + length
