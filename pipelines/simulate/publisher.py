"""Publishes readings and keeps a record of what the brokers acknowledged."""

import csv
import json
import sys
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from pipelines.simulate.readings import Message
from pipelines.simulate.sender import Sender, Target

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
_REPORT_SECONDS = 1.0
_Sending = tuple[Message, int, bool]


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
    """Publishes readings, each region to its broker, and keeps the record."""

    def __init__(
        self, target: Target, regions: Mapping[str, Target], sent: Path | None, stopped: threading.Event
    ) -> None:
        self.counts = {"history": 0, "live": 0, "malformed": 0}
        self._sent = SentFile(sent)
        self._report_at = time.monotonic() + _REPORT_SECONDS
        senders = {
            each: Sender[_Sending](each, stopped, self._record, self._report) for each in {target, *regions.values()}
        }
        self._sender, self._of_region = senders[target], {name: senders[each] for name, each in regions.items()}
        self._senders: list[Sender[_Sending]] = []
        self._is_live = False

    @property
    def acknowledged(self) -> int:
        """Messages that the brokers acknowledged."""
        return sum(self.counts.values())

    @property
    def unacknowledged(self) -> int:
        """Messages published that no broker has acknowledged."""
        return sum(sender.unacknowledged for sender in self._senders)

    @property
    def problems(self) -> list[str]:
        """What is wrong with each broker that is not connected."""
        return [f"{sender.target}: {sender.problem}" for sender in self._senders if sender.problem]

    def publish(self, message: Message, is_live: bool) -> None:
        """Publishes once the window has room; when stopped while waiting, the message is not sent."""
        sender = self._of_region.get(message.topic.split("/")[1], self._sender)
        if sender not in self._senders:
            self._senders.append(sender)  # a broker that no reading is for is not connected to
        self._is_live = is_live
        sender.publish(message.topic, message.payload, (message, time.time_ns() // 1000, is_live))
        self._report()

    def collect(self, is_live: bool) -> None:
        """Records the acknowledgements that are there."""
        self._is_live = is_live
        for sender in self._senders:
            sender.poll(0.0)
        self._report()

    def close(self) -> None:
        """Waits a bounded time for outstanding acknowledgements, then disconnects."""
        for sender in self._senders:
            sender.close()
        self._sent.close()

    def _report(self) -> None:
        if time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + _REPORT_SECONDS
            self._sent.flush()
            told = {"problems": self.problems} if self.problems else {}
            print_line({"sent": self.acknowledged, "phase": "live" if self._is_live else "history", **told})

    def _record(self, sending: _Sending) -> None:
        message, sent_at_us, is_live = sending
        self.counts["malformed" if message.key is None else "live" if is_live else "history"] += 1
        self._sent.write(message, sent_at_us, is_live)


def print_line(line: dict[str, Any]) -> None:
    """Writes one JSON line to standard output, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
