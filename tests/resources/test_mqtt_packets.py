import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.mqtt_packets import Arrived, MalformedPacketError, PacketReader

Message = tuple[str, int, bool, bytes]

SUBACK = b"\x90\x03\x00\x01\x01"
PUBREL = b"\x62\x02\x01\x02"


def integer(value: int) -> bytes:
    """A variable byte integer (MQTT 5.0, 1.5.5)."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (128 if value else 0))
        if not value:
            return bytes(digits)


def publish(message: Message, mid: int, properties: bytes | None) -> bytes:
    topic, qos, retain, payload = message
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (mid.to_bytes(2, "big") if qos else b"")
    if properties is not None:
        body += integer(len(properties)) + properties
    body += payload
    return bytes([0x30 | qos << 1 | retain]) + integer(len(body)) + body


def delivered(arrived: Arrived) -> list[Message]:
    return list(zip(arrived.topics, arrived.qos, arrived.retain, arrived.payloads, strict=True))


def feed_all(reader: PacketReader, pieces: list[bytes]) -> Arrived:
    whole = Arrived()
    for piece in pieces:
        arrived = reader.feed(piece)
        whole.properties |= {len(whole.topics) + place: text for place, text in arrived.properties.items()}
        whole.topics += arrived.topics
        whole.qos += arrived.qos
        whole.retain += arrived.retain
        whole.payloads += arrived.payloads
        whole.acknowledgements += arrived.acknowledgements
        whole.completions += arrived.completions
        whole.others += arrived.others
    return whole


MESSAGES = st.lists(
    st.tuples(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
        st.integers(0, 2),
        st.booleans(),
        st.one_of(st.binary(max_size=300), st.just(bytes(20_000))),
    ),
    max_size=8,
)


@given(MESSAGES, st.sampled_from([None, b"", b"\x01\x01", bytes(200)]), st.integers(1, 400))
def test_a_stream_cut_anywhere_gives_the_same_packets(
    messages: list[Message], properties: bytes | None, step: int
) -> None:
    stream = b"".join(publish(m, mid, properties) + SUBACK + PUBREL for mid, m in enumerate(messages, 1))
    pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
    arrived = feed_all(PacketReader(is_v5=properties is not None), pieces)
    assert delivered(arrived) == messages
    assert set(arrived.properties) == (set(range(len(messages))) if properties == bytes(200) else set())
    answers = {1: b"\x40\x02", 2: b"\x50\x02"}
    expected = [answers[m[1]] + mid.to_bytes(2, "big") for mid, m in enumerate(messages, 1) if m[1]]
    assert bytes(arrived.acknowledgements) == b"".join(expected)
    assert arrived.owed == len(expected)
    assert bytes(arrived.completions) == b"\x70\x02\x01\x02" * len(messages)
    assert arrived.others == [(0x90, b"\x00\x01\x01")] * len(messages)


@given(st.binary(max_size=60), st.booleans(), st.integers(1, 60))
def test_any_bytes_are_packets_or_malformed(data: bytes, is_v5: bool, step: int) -> None:
    reader = PacketReader(is_v5=is_v5)
    try:
        arrived = feed_all(reader, [data[i : i + step] for i in range(0, len(data), step)])
    except MalformedPacketError:
        return
    assert sum(map(len, arrived.payloads)) <= len(data)
    assert len(arrived.acknowledgements) % 4 == len(arrived.completions) % 4 == 0


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (b"\x36\x05\x00\x01a\x00\x01", "QoS 3"),
        (b"\x32\x03\x00\x01a" + SUBACK, "shorter than its topic"),
        (b"\x30\x02\x00\x09" + bytes(20), "shorter than its topic"),
        (b"\x30\xff\xff\xff\xff\x01", "more than four bytes"),
        (b"\x30\x00", "shorter than what it says"),
    ],
)
def test_what_is_no_packet_is_said(packet: bytes, problem: str) -> None:
    with pytest.raises(MalformedPacketError, match=problem):
        PacketReader(is_v5=False).feed(packet)


def test_a_topic_that_is_not_utf_8_stays_legible() -> None:
    packet = b"\x30\x04\x00\x02a\xff"
    assert delivered(PacketReader(is_v5=False).feed(packet)) == [("a\\xff", 0, False, b"")]
