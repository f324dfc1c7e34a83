"""A connection to an MQTT broker on asyncio that acknowledges only what it is told to (MQTT 3.1.1 and 5.0, OASIS).

A ``MqttConnection`` is one network connection and never reconnects. So an acknowledgement cannot go out on a later
connection than the one its message came on, where the broker may have given the packet identifier to another message.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from resources.errors import ConfigurationError, SourceUnavailableError
from resources.mqtt_client import MqttClient, in_daemon_thread, reason_of
from resources.mqtt_packets import Arrived
from resources.tls import Tls

_ANSWER_SECONDS = 10.0
_NEVER_EXPIRES = 0xFFFFFFFF


@dataclass(frozen=True)
class Broker:
    """Where to connect and what to subscribe to.

    ``receive_maximum`` and ``session_expiry`` (seconds, None is never) reach the broker in MQTT 5 only. On
    ``state_topic``, where given, the broker keeps a retained message that says whether this client is online.
    """

    name: str
    host: str
    port: int
    client_id: str
    topics: tuple[str, ...]
    qos: int
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    transport: Literal["tcp", "websocket"] = "tcp"
    path: str = "/mqtt"
    tls: Tls | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive: int = 60
    receive_maximum: int = 1000
    session_expiry: int | None = None
    state_topic: str | None = None

    def __str__(self) -> str:
        return f"mqtt broker {self.name} ({self.host}:{self.port})"


class MqttConnection:
    """One connection: ``open`` it, ``read`` until it ends, ``acknowledge`` what is durable, ``close`` it.

    ``on_refused`` is called with the topic filter and the broker's answer for each subscription that it does not grant
    as asked.
    """

    def __init__(self, broker: Broker, on_refused: Callable[[str, str], None]) -> None:
        self.broker = broker
        self.session_present = False
        self.is_subscribed = False
        self.unacknowledged = 0
        self._peak = 0
        self._on_refused = on_refused
        self._connack: ReasonCode | None = None
        self._ended: str | None = None
        self._stale: tuple[str, ...] = ()
        self._awaited: set[int | None] = set()
        self._is_refused = False
        self._early = Arrived()
        self._acknowledgements = bytearray()
        self._is_held = self._is_closed = self._is_drained = False
        self._opened_at = 0.0
        self._readable = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._client = self._make_client()

    def _make_client(self) -> MqttClient:
        broker, is_v5 = self.broker, self.broker.protocol == "5"
        client = MqttClient(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            clean_session=None if is_v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if broker.transport == "websocket" else "tcp",
            reconnect_on_failure=False,
        )
        client.username_pw_set(broker.username, broker.password)
        client.ws_set_options(broker.path)
        if broker.tls:
            try:
                client.tls_set_context(broker.tls.context())
            except ConfigurationError as error:
                raise ConfigurationError(f"{broker}: tls.{error}") from error
        if broker.state_topic:
            client.will_set(broker.state_topic, self._state("offline"), qos=1, retain=True)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_unsubscribe = self._unsubscribed
        client.on_disconnect = self._disconnected
        return client

    @property
    def is_open(self) -> bool:
        """Whether the broker accepted the connection and it has not ended."""
        return self._connack is not None and not self._connack.is_failure and self._ended is None

    async def open(self, known: Sequence[str] = ()) -> None:
        """Connects with a persistent session, subscribes, and ends the ``known`` subscriptions that are not wanted.

        Raises:
            SourceUnavailableError: the broker cannot be reached or refuses, with the reason.
            ConfigurationError: the host's name or a topic filter is not valid.
        """
        try:
            await in_daemon_thread(self._connect)
        except OSError as error:
            raise SourceUnavailableError(f"{self.broker}: {reason_of(error)}") from error
        except ValueError as error:
            raise ConfigurationError(f"{self.broker}: host {self.broker.host!r} is no host name: {error}") from error
        self._attach()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while self._connack is None:
                    self._early = await self.read()
        except TimeoutError as error:
            hint = f"does it speak MQTT {self.broker.protocol}?"
            raise SourceUnavailableError(f"{self.broker}: no CONNACK within {_ANSWER_SECONDS:g} s ({hint})") from error
        self._check_open()
        if self.session_present:
            self._stale = tuple(topic for topic in known if topic not in self.broker.topics)
        self._subscribe()
        self._publish_state("online")

    def _connect(self) -> None:
        broker, is_v5 = self.broker, self.broker.protocol == "5"
        properties = None
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = (
                _NEVER_EXPIRES if broker.session_expiry is None else broker.session_expiry
            )
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
        if (sock := client.socket()) is not None:
            loop.add_reader(sock, self._readable.set)
        client.loop_write()
        self._tick()

    def _unwatch_write(self, sock: Any) -> None:
        asyncio.get_running_loop().remove_writer(sock)

    def _detach(self, sock: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.remove_writer(sock)
        self._readable.set()
        if self._timer:
            self._timer.cancel()

    def _tick(self) -> None:
        """Serves the keep-alive."""
        if self._is_held:
            self._client.ping()
        else:
            self._client.loop_misc()
        if self._client.socket() is not None:
            keepalive = self._client.keepalive
            seconds = keepalive / 2 if self._is_held else min(1.0, keepalive / 4)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _subscribe(self) -> None:
        broker = self.broker
        options: list[Any] = [(topic, broker.qos) for topic in broker.topics]
        if broker.protocol == "5":
            # A retained message was kept when the subscription was new; on a reconnect it would come once more.
            once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            options = [(t, SubscribeOptions(qos=broker.qos, retainHandling=once)) for t in broker.topics]
        try:
            self._awaited = {self._client.subscribe(options)[1]}
            if self._stale:
                self._awaited.add(self._client.unsubscribe(list(self._stale))[1])
        except ValueError as error:
            raise ConfigurationError(f"{broker}: topics {list(broker.topics)}: {error}") from error

    def _state(self, state: str) -> str:
        return json.dumps({"client_id": self.broker.client_id, "state": state, "at": f"{datetime.now(UTC):%FT%TZ}"})

    def _publish_state(self, state: str) -> None:
        if self.broker.state_topic:
            self._client.publish(self.broker.state_topic, self._state(state), qos=1, retain=True)

    async def read(self) -> Arrived:
        """Returns what has arrived, after waiting for it if need be.

        Raises:
            SourceUnavailableError: the connection has ended, with the reason.
        """
        self._check_open()
        if self._connack and self._early.topics:
            # They came together with the CONNACK.
            arrived, self._early = self._early, Arrived()
            return arrived
        if self._is_drained:
            self._readable.clear()
            await self._readable.wait()
        else:
            await asyncio.sleep(0)
        self._check_open()
        arrived, self._is_drained = self._client.receive()
        self.unacknowledged += arrived.owed
        self._peak = max(self._peak, self.unacknowledged)
        if not arrived.topics:
            self._check_open()
        return arrived

    def _check_open(self) -> None:
        if self._connack is not None and self._connack.is_failure:
            raise SourceUnavailableError(f"{self.broker}: refused: {self._connack}")
        if self._ended is not None or self._client.socket() is None:
            raise SourceUnavailableError(f"{self.broker}: {self._ended or 'closed'}")

    @property
    def is_drained(self) -> bool:
        """Whether nothing more had arrived at the last ``read``."""
        return self._is_drained

    @property
    def is_stalled(self) -> bool:
        """Whether the broker may be waiting for acknowledgements: as many are owed as never before.

        Its in-flight window is not known (MQTT 3.1.1), but never smaller than the most messages it left unacknowledged.
        """
        return self._is_drained and 0 < self.unacknowledged >= self._peak

    @contextmanager
    def held(self) -> Iterator[None]:
        """While this lasts nothing is read from the socket; the connection is kept alive nevertheless."""
        loop, sock = asyncio.get_running_loop(), self._client.socket()
        self._is_held = True
        if sock is not None:
            loop.remove_reader(sock)
        try:
            yield
        finally:
            self._is_held = False
            if sock is not None and self._client.socket() is sock:
                loop.add_reader(sock, self._readable.set)

    def acknowledge(self, packets: bytearray) -> None:
        """Sends PUBACK and PUBREC packets for messages of this connection; nothing if it has ended."""
        if not packets or not self.is_open:
            return
        self.unacknowledged -= len(packets) // 4
        if not self._acknowledgements:
            asyncio.get_running_loop().call_soon(self._send_acknowledgements)
        self._acknowledgements += packets

    def _send_acknowledgements(self) -> None:
        packets, self._acknowledgements = self._acknowledgements, bytearray()
        if packets and self.is_open:
            self._client.send(packets)

    async def close(self, seconds: float = 1.0) -> None:
        """Sends the acknowledgements that are due and DISCONNECT, and closes the socket."""
        self._is_closed = True
        self._send_acknowledgements()
        if self.is_open:
            self._publish_state("offline")
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

    def _subscribed(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        for topic, reason in zip(self.broker.topics, reasons, strict=False):
            if reason.is_failure:
                self._on_refused(topic, f"refused: {reason}")
            elif reason.value < self.broker.qos:
                self._on_refused(topic, f"only QoS {reason.value} was granted, {self.broker.qos} is asked for")
        self._answered(mid)

    def _unsubscribed(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        for topic, reason in zip(self._stale, reasons, strict=False):
            if reason.is_failure:
                self._is_refused = True
                self._on_refused(topic, f"the broker does not end it: {reason}")
        self._answered(mid)

    def _answered(self, mid: int) -> None:
        self._awaited.discard(mid)
        self.is_subscribed = not self._awaited and not self._is_refused

    def _disconnected(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        failure = f": {self._client.failure}" if self._client.failure else ""
        if flags.is_disconnect_packet_from_server:
            self._ended = f"disconnected by the broker: {reason}"
        elif self._connack is None:
            self._ended = f"closed before CONNACK{failure} (does it speak MQTT {self.broker.protocol}?)"
        elif reason.getName() == "Keep alive timeout":
            self._ended = f"no answer within the keep-alive of {self._client.keepalive} s"
        else:
            lasted = asyncio.get_running_loop().time() - self._opened_at
            is_taken = f" (does another client use client_id {self.broker.client_id!r}?)" if lasted < 5 else ""
            self._ended = f"connection lost after {lasted:.1f} s{failure}{is_taken}"
