"""Publishes messages at QoS 1 and keeps a record of what the broker acknowledged."""

import csv
import json
import queue
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from pipelines.simulate.readings import Message

SENT_COLUMNS = (
    "kind",
    "site_id",
    "device_id",
    "sensor_id",
    "unit",
    "ts_ms",
    "sent_at_us",
    "is_live",
    "payload_sha256",
)
WINDOW = 400
POLL_SECONDS = 0.1
_DRAIN_SECONDS = 3.0
_REPORT_SECONDS = 1.0
_RECONNECT_SECONDS = (1, 10)


class SentFile:
    """The CSV file of what the broker acknowledged; a header stands in its first line."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = None if path is None else path.open("a", newline="", encoding="utf-8")
        if self._file is not None:
            self._writer = csv.writer(self._file, lineterminator="\n")
            if self._file.tell() == 0:
                self._writer.writerow(SENT_COLUMNS)

    def write(self, message: Message, sent_at_us: int, is_live: bool) -> None:
        """Appends one line; a malformed message leaves its key empty."""
        if self._file is None:
            return
        kind, key = ("malformed", ("",) * 5) if message.key is None else ("reading", message.key)
        digest = sha256(message.payload).hexdigest()
        self._writer.writerow((kind, *key, sent_at_us, "true" if is_live else "false", digest))

    def flush(self) -> None:
        """Makes what was written visible to other processes."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        if self._file is not None:
            self._file.close()


class Publisher:
    """Publishes at QoS 1 with at most ``WINDOW`` messages un-acknowledged.

    paho reconnects with back-off and publishes again what was not acknowledged. Its thread only hands over the message
    ids of PUBACKs; all else happens in the caller's thread, so that no lock is shared with paho's own.
    """

    def __init__(self, host: str, port: int, sent: Path | None, stopped: threading.Event) -> None:
        self.counts = {"history": 0, "live": 0, "malformed": 0}
        self._stopped = stopped
        self._sent = SentFile(sent)
        self._pending: dict[int, tuple[Message, int, bool]] = {}
        self._acknowledged: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._report_at = time.monotonic() + _REPORT_SECONDS
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(WINDOW)
        self._client.reconnect_delay_set(*_RECONNECT_SECONDS)
        self._client.on_publish = self._on_publish
        self._client.connect_async(host, port)
        self._client.loop_start()

    @property
    def acknowledged(self) -> int:
        """Messages that the broker acknowledged."""
        return sum(self.counts.values())

    @property
    def unacknowledged(self) -> int:
        """Messages published that the broker has not acknowledged."""
        return len(self._pending)

    def publish(self, message: Message, is_live: bool) -> None:
        """Publishes once the window has room; when stopped while waiting, the message is not sent."""
        self.collect(0.0, is_live)
        while len(self._pending) >= WINDOW:
            if self._stopped.is_set():
                return
            self.collect(POLL_SECONDS, is_live)
        sent_at_us = time.time_ns() // 1000
        info = self._client.publish(message.topic, message.payload, qos=1)
        self._pending[info.mid] = (message, sent_at_us, is_live)

    def collect(self, timeout: float, is_live: bool) -> None:
        """Records the acknowledgements that are there, or the next one within ``timeout`` seconds."""
        try:
            self._record(self._acknowledged.get(timeout=timeout) if timeout > 0 else self._acknowledged.get_nowait())
            while True:
                self._record(self._acknowledged.get_nowait())
        except queue.Empty:
            pass
        if time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + _REPORT_SECONDS
            self._sent.flush()
            print_line({"sent": self.acknowledged, "phase": "live" if is_live else "history"})

    def close(self) -> None:
        """Waits a bounded time for outstanding acknowledgements, then disconnects."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._pending and time.monotonic() < deadline:
            self.collect(POLL_SECONDS, True)
        self._client.disconnect()
        self._client.loop_stop()
        self.collect(0.0, True)
        self._sent.close()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._acknowledged.put(mid)

    def _record(self, mid: int) -> None:
        message, sent_at_us, is_live = self._pending.pop(mid)
        self.counts["malformed" if message.key is None else "live" if is_live else "history"] += 1
        self._sent.write(message, sent_at_us, is_live)


def print_line(line: dict[str, Any]) -> None:
    """Writes one JSON line to standard output, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
