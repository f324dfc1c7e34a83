"""A connection to an MQTT broker on asyncio that acknowledges only what it is told to (MQTT 3.1.1 and 5.0, OASIS).

paho-mqtt writes and parses the packets and keeps the connection alive; here it is driven by an event loop. A
``MqttConnection`` is one network connection and never reconnects. So an acknowledgement cannot go out on a later
connection than the one its message came on, where the broker may have given the packet identifier to another message.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from resources.errors import ConfigurationError, SourceUnavailableError

_CHUNK = 65536
_PACKETS_PER_TURN = 200
_ANSWER_SECONDS = 10.0
_NEVER_EXPIRES = 0xFFFFFFFF
_PUBACK, _PUBREC = 0x40, 0x50


@dataclass(frozen=True)
class Broker:
    """Where to connect and what to subscribe to; ``receive_maximum`` reaches the broker in MQTT 5 only."""

    name: str
    host: str
    port: int
    client_id: str
    topics: tuple[str, ...]
    qos: int
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive: int = 60
    receive_maximum: int = 1000

    def __str__(self) -> str:
        return f"mqtt broker {self.name} ({self.host}:{self.port})"


class MqttMessage(NamedTuple):
    """A PUBLISH as it was delivered; ``mid`` is its packet identifier, 0 for QoS 0."""

    topic: str
    qos: int
    retain: bool
    payload: bytes
    mid: int


class _Client(paho.Client):
    """paho's client with its receiving end changed; the private parts are those of the pinned version, held by tests.

    The socket is read in chunks instead of byte by byte. A QoS 2 message is delivered when it arrives, and its PUBREC
    is left to the caller: paho sends PUBREC at once, after which the broker forgets it, and delivers on PUBREL.
    """

    _chunk = b""
    _position = 0

    @property
    def has_buffered(self) -> bool:
        """Whether received bytes wait to be parsed."""
        return self._position < len(self._chunk)

    def abort(self) -> None:
        """Closes the socket as it is."""
        self._sock_close()

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._position >= len(self._chunk):
            self._chunk, self._position = super()._sock_recv(_CHUNK), 0
        data = self._chunk[self._position : self._position + bufsize]
        self._position += len(data)
        return data

    def _send_pubrec(self, mid: int) -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_publish(self) -> MQTTErrorCode:
        outcome = super()._handle_publish()
        if self._in_messages:
            self._handle_on_message(self._in_messages.popitem()[1])
        return outcome

    def _handle_pubrel(self) -> MQTTErrorCode:
        return self._send_pubcomp(int.from_bytes(self._in_packet["packet"][:2], "big"))

    def acknowledge(self, packets: bytearray) -> None:
        """Sends PUBACK and PUBREC packets in one write."""
        self._packet_queue(_PUBACK, packets, 0, 0)

    def ping(self) -> None:
        """Sends a PINGREQ without a deadline for the PINGRESP, which stands behind messages that are not read now."""
        self._send_pingreq()
        self._ping_t = 0.0


def _in_daemon_thread(function: Callable[[], object]) -> "asyncio.Future[None]":
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


class MqttConnection:
    """One connection: ``open`` it, ``read`` until it ends, ``acknowledge`` what is durable, ``close`` it.

    ``on_message`` is called for each PUBLISH, ``on_refused`` with the topic filter and the broker's answer for each
    subscription that it does not grant as asked.
    """

    def __init__(
        self,
        broker: Broker,
        on_message: Callable[["MqttConnection", MqttMessage], None],
        on_refused: Callable[[str, str], None],
    ) -> None:
        self.broker = broker
        self.session_present = False
        self.unacknowledged = 0
        self._peak = 0
        self._on_message, self._on_refused = on_message, on_refused
        self._connack: ReasonCode | None = None
        self._ended: str | None = None
        self._acknowledgements = bytearray()
        self._is_held = self._is_closed = False
        self._opened_at = 0.0
        self._readable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._client = self._make_client()

    def _make_client(self) -> _Client:
        is_v5 = self.broker.protocol == "5"
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.broker.client_id,
            clean_session=None if is_v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.username_pw_set(self.broker.username, self.broker.password)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.on_disconnect = self._disconnected
        return client

    @property
    def is_open(self) -> bool:
        """Whether the broker accepted the connection and it has not ended."""
        return self._connack is not None and not self._connack.is_failure and self._ended is None

    async def open(self) -> None:
        """Connects with a persistent session and subscribes.

        Raises:
            SourceUnavailableError: the broker cannot be reached or refuses, with the reason.
            ConfigurationError: a topic filter is not valid.
        """
        try:
            await _in_daemon_thread(self._connect)
        except OSError as error:
            raise SourceUnavailableError(f"{self.broker}: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigurationError(f"{self.broker}: host {self.broker.host!r} is no host name: {error}") from error
        self._attach()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while self._connack is None:
                    await self.read()
        except TimeoutError as error:
            hint = f"does it speak MQTT {self.broker.protocol}?"
            raise SourceUnavailableError(f"{self.broker}: no CONNACK within {_ANSWER_SECONDS:g} s ({hint})") from error
        self._check_open()
        self._subscribe()

    def _connect(self) -> None:
        broker, is_v5 = self.broker, self.broker.protocol == "5"
        properties = None
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = _NEVER_EXPIRES
            properties.ReceiveMaximum = broker.receive_maximum
        start = False if is_v5 else paho.MQTT_CLEAN_START_FIRST_ONLY
        self._client.connect(broker.host, broker.port, broker.keepalive, clean_start=start, properties=properties)
        if self._is_closed:
            self._client.abort()

    def _attach(self) -> None:
        """Hands the connected socket to the event loop; until here its callbacks would have come from a thread."""
        loop, client = asyncio.get_running_loop(), self._client
        client.on_socket_register_write = lambda _client, _data, sock: loop.add_writer(sock, client.loop_write)
        client.on_socket_unregister_write = lambda _client, _data, sock: self._unwatch_write(sock)
        client.on_socket_close = lambda _client, _data, sock: self._detach(sock)
        client.loop_write()
        self._tick()

    def _unwatch_write(self, sock: Any) -> None:
        asyncio.get_running_loop().remove_writer(sock)

    def _detach(self, sock: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.remove_writer(sock)
        self._wake()
        if self._timer:
            self._timer.cancel()

    def _tick(self) -> None:
        """Serves the keep-alive."""
        if self._is_held:
            self._client.ping()
        else:
            self._client.loop_misc()
        if self._client.socket() is not None:
            seconds = self.broker.keepalive / 2 if self._is_held else min(1.0, self.broker.keepalive / 4)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _subscribe(self) -> None:
        broker = self.broker
        options: list[Any] = [(topic, broker.qos) for topic in broker.topics]
        if broker.protocol == "5":
            # A retained message was kept when the subscription was new; on a reconnect it would come once more.
            once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            options = [(t, SubscribeOptions(qos=broker.qos, retainHandling=once)) for t in broker.topics]
        try:
            self._client.subscribe(options)
        except ValueError as error:
            raise ConfigurationError(f"{broker}: topics {list(broker.topics)}: {error}") from error

    async def read(self) -> bool:
        """Handles what has arrived, after waiting for it if need be; returns whether nothing more is there.

        Raises:
            SourceUnavailableError: the connection has ended, with the reason.
        """
        if self._client.has_buffered:
            await asyncio.sleep(0)
        else:
            await self._wait_readable()
        for _ in range(_PACKETS_PER_TURN):
            self._client.loop_read()
            if not self._client.has_buffered:
                break
        self._check_open()
        return not self._client.has_buffered

    async def _wait_readable(self) -> None:
        loop, sock = asyncio.get_running_loop(), self._client.socket()
        if sock is None:
            return
        self._readable = loop.create_future()
        loop.add_reader(sock, self._wake)
        try:
            await self._readable
        finally:
            self._readable = None
            if self._client.socket() is sock:
                loop.remove_reader(sock)

    def _wake(self) -> None:
        if self._readable and not self._readable.done():
            self._readable.set_result(None)

    def _check_open(self) -> None:
        if self._connack is not None and self._connack.is_failure:
            raise SourceUnavailableError(f"{self.broker}: refused: {self._connack}")
        if self._ended is not None or self._client.socket() is None:
            raise SourceUnavailableError(f"{self.broker}: {self._ended or 'closed'}")

    @property
    def is_stalled(self) -> bool:
        """Whether the broker may be waiting for acknowledgements: as many are owed as never before.

        Its in-flight window is not known (MQTT 3.1.1), but never smaller than the most messages it left unacknowledged.
        """
        return 0 < self.unacknowledged >= self._peak

    @contextmanager
    def held(self) -> Iterator[None]:
        """While this lasts ``read`` is not called; the connection is kept alive nevertheless."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    def acknowledge(self, mid: int, qos: int) -> None:
        """Sends PUBACK (QoS 1) or PUBREC (QoS 2) for a message of this connection; nothing if it has ended."""
        if not qos or not self.is_open:
            return
        self.unacknowledged -= 1
        if not self._acknowledgements:
            asyncio.get_running_loop().call_soon(self._send_acknowledgements)
        self._acknowledgements += bytes((_PUBACK if qos == 1 else _PUBREC, 2, mid >> 8, mid & 0xFF))

    def _send_acknowledgements(self) -> None:
        packets, self._acknowledgements = self._acknowledgements, bytearray()
        if packets and self.is_open:
            self._client.acknowledge(packets)

    async def close(self, seconds: float = 1.0) -> None:
        """Sends the acknowledgements that are due and DISCONNECT, and closes the socket."""
        self._is_closed = True
        self._send_acknowledgements()
        if self.is_open:
            self._client.disconnect()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    # paho closes the socket when DISCONNECT has been written.
                    while self._client.socket() is not None:
                        await asyncio.sleep(0.005)
        self._client.abort()

    def _connected(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._connack, self.session_present = reason, flags.session_present
        self._opened_at = asyncio.get_running_loop().time()

    def _subscribed(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        for topic, reason in zip(self.broker.topics, reasons, strict=False):
            if reason.is_failure:
                self._on_refused(topic, f"refused: {reason}")
            elif reason.value < self.broker.qos:
                self._on_refused(topic, f"only QoS {reason.value} was granted, {self.broker.qos} is asked for")

    def _received(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        if message.qos:
            self.unacknowledged += 1
            self._peak = max(self._peak, self.unacknowledged)
        # Ill-formed UTF-8 is against the standard (1.5.3); the message is kept, its topic legible.
        topic = message._topic.decode(errors="backslashreplace")
        payload = bytes(message.payload)
        self._on_message(self, MqttMessage(topic, message.qos, message.retain, payload, message.mid))

    def _disconnected(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._ended = f"disconnected by the broker: {reason}"
        elif self._connack is None:
            self._ended = f"closed before CONNACK (does it speak MQTT {self.broker.protocol}?)"
        elif reason.getName() == "Keep alive timeout":
            self._ended = f"no answer within the keep-alive of {self.broker.keepalive} s"
        else:
            lasted = asyncio.get_running_loop().time() - self._opened_at
            is_taken = f" (does another client use client_id {self.broker.client_id!r}?)" if lasted < 5 else ""
            self._ended = f"connection lost after {lasted:.1f} s{is_taken}"
