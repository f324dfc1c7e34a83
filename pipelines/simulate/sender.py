"""Publishes many messages a second from one thread, and tells which of them the broker acknowledged.

paho keeps the messages, their states and the connection; here its packets are written together, as one write for many,
and what comes is read together. So one process reaches 20,000 messages a second, which paho's own loop does not.
"""

import random
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from resources.mqtt_client import MqttClient, reason_of

Token = TypeVar("Token")
WINDOW = 1000
_TOGETHER = 64
_DRAIN_SECONDS = 3.0
_CONNECT_SECONDS = 5.0
_PAUSES = 0.2, 5.0
_KEEPALIVE = 60
_PUBACK, _PUBREC, _PUBCOMP = 0x40, 0x50, 0x70
_PUBREL = b"\x62\x02"
_MOST_BEHIND_SECONDS = 1.0
_TICK_SECONDS = 0.01


@dataclass(frozen=True)
class Target:
    """The broker that is published to."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    qos: Literal[0, 1, 2] = 1

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Pace:
    """Lets messages go at a rate, in bursts a tick apart: a wait for each would cost more than the message."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._due = self._burst_at = time.monotonic()

    def wait(self, now: float) -> float:
        """Seconds until a message may go, 0 for now; that one then counts as gone."""
        if now < self._burst_at:
            return self._burst_at - now
        if now < self._due:
            self._burst_at = max(self._due, now + _TICK_SECONDS)
            return self._burst_at - now
        # After a pause (no broker, a suspended laptop) the rate goes on instead of catching up in one burst.
        self._due = max(self._due + self._step, now - _MOST_BEHIND_SECONDS)
        return 0.0


class _Client(MqttClient):
    """paho's client with its packets held back until ``flush``, and the acknowledgements passed to ``settle``.

    paho makes a reason, properties and a look at each message in flight of every acknowledgement: half of the time that
    a message costs. With MQTT 3.1.1 there is nothing in it but the message's number.
    """

    def __init__(self, settle: Callable[[int], None]) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._held = bytearray()
        self._settle = settle

    def _handle(self, first: int, body: bytes) -> None:
        message = self._out_messages.get(mid := int.from_bytes(body))
        if first == _PUBREC and message:
            message.state = paho.mqtt_ms_wait_for_pubcomp
            self._held += _PUBREL + body
        elif first in (_PUBACK, _PUBCOMP) and message:
            del self._out_messages[mid]
            self._inflight_messages -= 1
            self._settle(mid)
        else:
            super()._handle(first, body)

    def _packet_queue(self, command: int, packet: Any, mid: int, qos: int, info: Any = None) -> MQTTErrorCode:
        self._held += packet
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def flush(self) -> bool:
        """Writes what is held back; false when the socket does not take all of it now."""
        if self._held:
            packets, self._held = self._held, bytearray()
            super()._packet_queue(paho.PUBACK, packets, 0, 0)
        return not self.want_write() or (self.loop_write() is MQTTErrorCode.MQTT_ERR_SUCCESS and not self.want_write())

    def forget(self) -> None:
        """Drops what is held back: paho sends it again on the next connection."""
        self._held.clear()


class Sender(Generic[Token]):
    """Publishes with at most ``WINDOW`` messages un-acknowledged; each comes with a token of the caller's.

    ``acknowledged`` is called with the token once the broker has the message: after PUBACK or PUBCOMP, with QoS 0 when
    it is written; ``waiting`` while the window is full. A lost connection is made anew, and what was not acknowledged
    is sent again (with QoS 0 it is lost).
    """

    def __init__(
        self,
        target: Target,
        stopped: threading.Event,
        acknowledged: Callable[[Token], None],
        waiting: Callable[[], None],
    ) -> None:
        self.target = target
        self.problem: str | None = "not connected yet"
        self._stopped = stopped
        self._acknowledged = acknowledged
        self._waiting = waiting
        self._pending: dict[int, Token] = {}
        self._pause = _PAUSES[0]
        self._retry_at = 0.0
        self._unsent = 0
        self._is_connected = False
        self._client = client = _Client(self._settle)
        client.username_pw_set(target.username, target.password)
        client.max_inflight_messages_set(0)  # ``publish`` keeps to the window
        client.connect_timeout = _CONNECT_SECONDS
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect

    @property
    def unacknowledged(self) -> int:
        """Messages published that the broker has not acknowledged."""
        return len(self._pending)

    def publish(self, topic: str, payload: bytes, token: Token) -> bool:
        """Publishes once the window has room; false when stopped while waiting: then it is not sent."""
        most = WINDOW - 1
        while len(self._pending) > most or self._must_connect_first:
            if self._stopped.is_set():
                return False
            most = WINDOW - _TOGETHER  # else each acknowledgement would let out one message, in a write of its own
            self.poll(0.1)
            self._waiting()
        mid = self._client.publish(topic, payload, self.target.qos).mid
        if self.target.qos == 0:
            self._acknowledged(token)
        else:
            self._pending[mid] = token
        self._unsent += 1
        if self._unsent >= _TOGETHER:
            self.poll(0.0)
        return True

    @property
    def _must_connect_first(self) -> bool:
        """What QoS 0 publishes without a connection is lost; what QoS 1 and 2 do while one is made overtakes."""
        return not self._is_connected and (self.target.qos == 0 or self._client.socket() is not None)

    def poll(self, timeout: float) -> None:
        """Writes what is held back and takes what came, waiting for it up to ``timeout`` seconds."""
        self._unsent = 0
        if not self._client.is_connected() and not self._connect(timeout):
            return
        if (sock := self._client.socket()) is None:
            return
        is_written = self._client.flush()
        if self._client.socket() is not None:
            readable, _, _ = select.select([sock], [] if is_written else [sock], [], timeout)
            if readable or not is_written:
                self._client.receive()
        self._client.loop_misc()

    def close(self) -> None:
        """Waits a bounded time for outstanding acknowledgements, then disconnects."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        self.poll(0.0)
        while (self._pending or self._client.want_write()) and time.monotonic() < deadline:
            self.poll(0.1)
        self._client.disconnect()
        self._client.flush()
        self._client.abort()

    def _connect(self, timeout: float) -> bool:
        """Goes on connecting; true once the broker has accepted."""
        if self._client.socket() is None:
            wait = self._retry_at - time.monotonic()
            if wait > 0:
                self._stopped.wait(min(wait, max(timeout, 0.01)))
                return False
            self._client.forget()
            try:
                self._client.connect(self.target.host, self.target.port, _KEEPALIVE)
            except OSError as error:
                self._fail(reason_of(error))
                return False
        return True

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._retry_at = time.monotonic() + random.uniform(self._pause / 2, self._pause)
        self._pause = min(2 * self._pause, _PAUSES[1])

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.problem = f"the broker refuses: {reason}"
        else:
            self.problem, self._pause, self._is_connected = None, _PAUSES[0], True

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._is_connected = False
        self._fail(self.problem or self._client.failure or f"the connection ended: {reason}")

    def _settle(self, mid: int) -> None:
        if mid in self._pending:
            self._acknowledged(self._pending.pop(mid))
