"""paho-mqtt's client with its receiving end changed: what comes is read in large pieces and taken apart together.

The private parts used are those of the pinned version, held by tests with a real broker.
"""

import asyncio
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

from resources.mqtt_packets import Arrived, MalformedPacketError, PacketReader

_CHUNK = 256 * 1024
_PUBACK = 0x40
_MQTT_5 = 5


class MqttClient(paho.Client):
    """Messages come from ``receive``, not from ``on_message``; their acknowledgements are left to the caller.

    With QoS 2 that is PUBREC, sent when a message is durable (method B of MQTT 3.1.1, figure 4.3). paho by itself sends
    PUBREC at once, after which the broker forgets the message, and delivers it on PUBREL.
    """

    failure: str | None = None
    """Why the connection ended, where the socket or what came from it says so."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._reader = PacketReader(is_v5=self._protocol == _MQTT_5)

    def receive(self) -> tuple[Arrived, bool]:
        """Takes what has arrived, without waiting, and whether that was all there is."""
        data, is_drained, is_ended = self._take()
        self._last_bytes_received = time.monotonic()
        try:
            arrived = self._reader.feed(data)
        except MalformedPacketError as error:
            self.failure, is_ended, arrived = str(error), True, Arrived()
        for first, body in arrived.others:
            self._handle(first, body)
        if arrived.completions:
            self.send(arrived.completions)
        if is_ended and self._sock is not None:
            self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        return arrived, is_drained

    def _take(self) -> tuple[bytes, bool, bool]:
        """The bytes that are there, whether these are all, and whether the connection has ended behind them."""
        pieces, size = [], 0
        while size < _CHUNK:
            try:
                pieces.append(self._sock_recv(_CHUNK))
            except BlockingIOError:
                if not self._has_pending():
                    return b"".join(pieces), True, False
            except OSError as error:
                self.failure = reason_of(error)
                return b"".join(pieces), True, True
            else:
                size += len(pieces[-1])
                if not pieces[-1]:
                    return b"".join(pieces), True, True
        return b"".join(pieces), False, False

    def send(self, packets: bytearray) -> None:
        """Sends whole acknowledgement packets in one write."""
        if self._sock is not None:
            self._packet_queue(_PUBACK, packets, 0, 0)

    def ping(self) -> None:
        """Sends a PINGREQ without a deadline for the PINGRESP, which stands behind messages that are not read now."""
        self._send_pingreq()
        self._ping_t = 0.0

    def abort(self) -> None:
        """Closes the socket as it is."""
        self._sock_close()

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = self._alert() or reason_of(error)
            raise

    def _alert(self) -> str | None:
        """What the other side of TLS said before it closed; a write that fails does not tell."""
        if isinstance(self._sock, ssl.SSLSocket):
            try:
                self._sock.recv(1)
            except ssl.SSLWantReadError:
                return None
            except OSError as error:
                return reason_of(error)
        return None

    def _sock_close(self) -> None:
        super()._sock_close()
        # What came of a packet does not go on in the next connection.
        self._reader = PacketReader(is_v5=self._protocol == _MQTT_5)

    def _has_pending(self) -> bool:
        """Whether TLS holds bytes that the socket no longer tells of."""
        return isinstance(self._sock, ssl.SSLSocket | paho._WebsocketWrapper) and self._sock.pending() > 0

    def _handle(self, first: int, body: bytes) -> None:
        """Lets paho handle a packet that is no PUBLISH."""
        if self._sock is None:
            return
        packet = self._in_packet
        packet["command"], packet["remaining_length"], packet["packet"] = first, len(body), bytearray(body)
        try:
            outcome = self._packet_handle()
        except (MalformedPacket, ValueError, IndexError, struct.error) as error:
            self.failure = f"what came is no MQTT: {error}"
            outcome = MQTTErrorCode.MQTT_ERR_PROTOCOL
        if outcome:
            self._loop_rc_handle(outcome)


def reason_of(error: OSError) -> str:
    """What is wrong, in the words of the system or of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the broker is not valid: {error.verify_message} (see tls.ca)"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.lower().replace('_', ' ')}"
    return error.strerror or str(error)


def in_daemon_thread(function: Callable[[], object]) -> "asyncio.Future[None]":
    """Runs a blocking call in a thread of its own.

    A name server that does not answer must not take the worker threads that landing needs, nor keep the process from
    ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def run() -> None:
        error: Exception | None = None
        try:
            function()
        except (OSError, ValueError) as caught:
            error = caught
        with suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="mqtt-connect", daemon=True).start()
    return future
