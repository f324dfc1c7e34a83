"""A publisher that sends as fast as the broker takes, over a plain socket (MQTT 3.1.1)."""

import select
import socket

TOPIC = "bench/readings"
PAYLOAD_BYTES = 150
# Mosquitto takes no more unfinished QoS 2 messages than its max_inflight_messages.
_WINDOW = {1: 4_000, 2: 900}
_AT_ONCE = 300
_PUBREC, _PUBREL = 0x50, b"\x62\x02"


def payload(number: int) -> bytes:
    """A text of 150 bytes that no other number has."""
    return b"%010d" % number + b"x" * (PAYLOAD_BYTES - 10)


def _length(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def _publish(number: int, qos: int) -> bytes:
    body = len(TOPIC).to_bytes(2, "big") + TOPIC.encode()
    body += (number % 65_535 + 1).to_bytes(2, "big") if qos else b""
    body += payload(number)
    return bytes([0x30 | qos << 1]) + _length(len(body)) + body


def send(port: int, count: int, qos: int) -> None:
    """Publishes messages 0 to ``count``; returns when the broker has taken responsibility for all of them."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        client = b"bench-sender"
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client).to_bytes(2, "big") + client
        connection.sendall(b"\x10" + _length(len(body)) + body)
        assert connection.recv(4) == b"\x20\x02\x00\x00", "the broker refuses"
        sent = acknowledged = 0
        rest = b""
        while (acknowledged if qos else sent) < count:
            if sent < count and (not qos or sent + _AT_ONCE - acknowledged <= _WINDOW[qos]):
                upto = min(count, sent + _AT_ONCE)
                connection.sendall(b"".join(_publish(number, qos) for number in range(sent, upto)))
                sent = upto
            if qos and (
                sent == count
                or sent + _AT_ONCE - acknowledged > _WINDOW[qos]
                or select.select([connection], [], [], 0)[0]
            ):
                rest += connection.recv(65_536)
                packets = [rest[i : i + 4] for i in range(0, len(rest) // 4 * 4, 4)]
                rest = rest[len(packets) * 4 :]
                releases = b"".join(_PUBREL + packet[2:] for packet in packets if packet[0] == _PUBREC)
                if releases:
                    connection.sendall(releases)
                acknowledged += sum(packet[0] != _PUBREC for packet in packets)
        connection.sendall(b"\xe0\x00")
