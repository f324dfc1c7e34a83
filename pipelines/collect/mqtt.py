"""The MQTT collector: what a broker delivers goes to landing, and is acknowledged once it is durable there."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.subscriptions import Subscriptions
from pipelines.settings.mqtt import MqttBroker
from resources.errors import SecchiError
from resources.mqtt import MqttConnection
from resources.mqtt_packets import Arrived
from resources.topics import TopicParts, is_broker_state

SOURCE = "mqtt_messages"
RECORD = pa.schema(
    [
        pa.field("broker", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("qos", pa.int8()),
        pa.field("retain", pa.bool_()),
        pa.field("payload", pa.binary()),
        pa.field("received_at", pa.timestamp("us", tz="UTC")),
        pa.field("topic_parts", pa.string()),
        pa.field("properties", pa.string()),
    ]
)

_USUAL_WINDOW = 20  # max_inflight_messages of Mosquitto
_QUIET_SECONDS = 0.002

logger = logging.getLogger(__name__)


class MqttCollector:
    """Collects from one broker for as long as it is run, through every reconnect.

    ``folder`` keeps what has to be known of the session after a restart.
    """

    def __init__(self, config: MqttBroker, landing: GroupCommit, folder: Path) -> None:
        self._config, self._landing, self._folder = config, landing, folder
        self._parts = TopicParts(config.topics)
        self._connection: MqttConnection | None = None
        self._received = self._durable = self._connects = 0
        self._quiet: asyncio.TimerHandle | None = None
        self._last_error: str | None = None
        self._reported: str | None = None

    def status(self) -> dict[str, Any]:
        """State and counters of this broker for the status file."""
        return {
            "connected": self._connection is not None and self._connection.is_open,
            "received": self._received,
            "durable": self._durable,
            "reconnects": max(0, self._connects - 1),
            "last_error": self._last_error,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Collects until ``stop``; then commits, acknowledges and disconnects. Problems of the broker are retried."""
        serving = asyncio.create_task(self._keep_connected())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            stopping.cancel()
            outcome, _ = await asyncio.gather(serving, stopping, return_exceptions=True)
            await self._leave()
        if isinstance(outcome, Exception):
            raise outcome

    async def reload(self, section: MqttBroker) -> bool:
        """Whether it can go on with this configuration; a changed one needs a new start."""
        return section == self._config

    async def _leave(self) -> None:
        if self._connection:
            await self._landing.flush()
            await self._connection.close()

    async def _keep_connected(self) -> None:
        shortest = self._config.reconnect_min.total_seconds()
        longest = max(shortest, self._config.reconnect_max.total_seconds())
        ceiling = shortest
        while True:
            began = time.monotonic()
            try:
                await self._serve()
            except SecchiError as error:
                self._note_problem(str(error))
            if self._connection:
                await self._connection.close()
            ceiling = min(longest, 2 * (shortest if time.monotonic() - began > ceiling else ceiling))
            await asyncio.sleep(random.uniform(shortest, ceiling))

    async def _serve(self) -> None:
        """Connects and reads until the connection ends, which is always an error."""
        broker = self._config.reveal()
        session = f"{broker.host}:{broker.port} {broker.client_id}"
        subscriptions = Subscriptions(self._folder, broker.name, session)
        subscriptions.write({*subscriptions.known, *broker.topics})
        self._connection = connection = MqttConnection(broker, self._note_refused)
        await connection.open(subscriptions.known)
        self._note_connected(connection)
        is_recorded = False
        while True:
            if connection.is_subscribed and not is_recorded:
                subscriptions.write(broker.topics)
                is_recorded = True
            if not self._landing.is_writable:
                with connection.held():
                    await self._landing.wait_writable()
            self._land(connection, await connection.read())
            self._flush_full_window(connection)

    def _flush_full_window(self, connection: MqttConnection) -> None:
        """Commits at once where the broker may be waiting for acknowledgements, instead of at the next interval."""
        if self._quiet:
            self._quiet.cancel()
        owed = connection.unacknowledged
        if owed >= self._config.max_in_flight or connection.is_stalled:
            self._landing.request_flush()
        elif connection.is_drained and owed >= _USUAL_WINDOW:
            # Mosquitto lets more through for a while after many acknowledgements; then its window is small again.
            self._quiet = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._landing.request_flush)

    def _land(self, connection: MqttConnection, arrived: Arrived) -> None:
        if not arrived.topics:
            return
        properties: list[str | None] = [None] * len(arrived.topics)
        for place, text in arrived.properties.items():
            properties[place] = text
        messages: Sequence[list[Any]] = (arrived.topics, arrived.qos, arrived.retain, arrived.payloads, properties)
        if any(map(is_broker_state, set(arrived.topics))):
            is_kept = [not is_broker_state(topic) for topic in arrived.topics]
            messages = [list(compress(column, is_kept)) for column in messages]
        *messages, properties = messages
        topics, count = messages[0], len(messages[0])
        self._received += count
        times = [time.time_ns() // 1000] * count
        columns = ([self._config.name] * count, *messages, times, list(map(self._parts.of, topics)), properties)
        on_durable = partial(self._settle, connection, arrived.acknowledgements, count)
        self._landing.put_all(columns, on_durable, sum(map(len, arrived.properties.values())))

    def _settle(self, connection: MqttConnection, acknowledgements: bytearray, count: int) -> None:
        self._durable += count
        connection.acknowledge(acknowledgements)

    def _note_connected(self, connection: MqttConnection) -> None:
        self._connects += 1
        self._reported = None
        if self._connects > 1 and not connection.session_present:
            logger.warning("%s: has lost our session; messages sent meanwhile may be missing", connection.broker)
        else:
            logger.info("%s: connected", connection.broker)

    def _note_problem(self, problem: str) -> None:
        self._last_error = problem
        if problem != self._reported:
            self._reported = problem
            logger.warning("%s; trying again within %g s", problem, self._config.reconnect_max.total_seconds())

    def _note_refused(self, topic: str, answer: str) -> None:
        self._last_error = f"mqtt broker {self._config.name}: subscription to {topic!r}: {answer}"
        logger.warning("%s", self._last_error)
