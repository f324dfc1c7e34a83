"""The factories of a catalogue: publishes their past and then their present over MQTT at QoS 1.

``python -m pipelines.simulate.factory --port 1883 --sent sent.csv`` sends six hours of history as fast as the broker
takes them, then live readings until SIGINT or SIGTERM. What the broker acknowledged stands in the ``--sent`` file, so
that a reader can compare what it stored with what was sent. Standard output carries JSON lines only.
"""

import argparse
import csv
import heapq
import random
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipelines.simulate.catalogue import PACKAGED, load_catalogue
from pipelines.simulate.publisher import POLL_SECONDS, Publisher, print_line
from pipelines.simulate.readings import Label, Message, Plant, broken
from resources.durations import parse_duration
from resources.errors import ConfigurationError

_MOST_BEHIND_SECONDS = 1.0
_HELD_SHARE = 0.05
_HELD_SECONDS = 1.9


@dataclass(frozen=True)
class Options:
    """What to send and where; see ``--help``."""

    port: int
    host: str = "127.0.0.1"
    catalogue: Path = PACKAGED
    rate: float = 200.0
    history: timedelta = timedelta(hours=6)
    history_interval: timedelta = timedelta(seconds=30)
    duration: float | None = None
    sent: Path | None = None
    labels: Path | None = None
    seed: int = 0
    malformed_every: int = 5000


class LivePhase:
    """Live readings at a steady rate; some are held back up to two seconds, so that they arrive out of order."""

    def __init__(self, options: Options, plant: Plant, publisher: Publisher) -> None:
        self._options = options
        self._plant = plant
        self._publisher = publisher
        self._random = random.Random(options.seed + 1)
        self._held: list[tuple[float, Message]] = []
        self._count = 0

    def run(self, stopped: threading.Event) -> None:
        """Sends until ``stopped`` or the duration is over, then what is still held back."""
        started = due = time.monotonic()
        ends = started + self._options.duration if self._options.duration is not None else float("inf")
        while (now := time.monotonic()) < ends and not stopped.is_set():
            self._release(now)
            if now < due:
                self._publisher.collect(min(due - now, POLL_SECONDS), True)
                continue
            # After a pause (no broker, a suspended laptop) the rate goes on instead of catching up in one burst.
            due = max(due + 1 / self._options.rate, now - _MOST_BEHIND_SECONDS)
            if (message := self._plant.live(time.time_ns() // 1_000_000)) is not None:
                self._send_or_hold(message, now)
        self._release(float("inf"))

    def _send_or_hold(self, message: Message, now: float) -> None:
        if self._random.random() < _HELD_SHARE:
            heapq.heappush(self._held, (now + self._random.uniform(0, _HELD_SECONDS), message))
        else:
            self._send(message)

    def _release(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            self._send(heapq.heappop(self._held)[1])

    def _send(self, message: Message) -> None:
        self._count += 1
        every = self._options.malformed_every
        if every and self._count % every == 0:
            message = broken(message, self._count // every - 1)
        self._publisher.publish(message, True)


def run(options: Options, stopped: threading.Event) -> dict[str, Any]:
    """Sends history, then live readings; returns the summary.

    Raises:
        ConfigurationError: the catalogue is wrong, or a file cannot be written.
    """
    plant = Plant(load_catalogue(options.catalogue), options.seed)
    started, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    from_ms = now_ms - options.history // timedelta(milliseconds=1)
    try:
        publisher = Publisher(options.host, options.port, options.sent, stopped)
    except OSError as error:
        raise ConfigurationError(f"--sent {options.sent}: {error.strerror}") from error
    try:
        for message in plant.history(from_ms, now_ms, options.history_interval // timedelta(milliseconds=1)):
            if stopped.is_set():
                break
            publisher.publish(message, False)
        LivePhase(options, plant, publisher).run(stopped)
    finally:
        publisher.close()
    if options.labels is not None:
        _write_labels(options.labels, plant.labels(from_ms, time.time_ns() // 1_000_000))
    seconds = round(time.monotonic() - started, 3)
    counts = {**publisher.counts, "unacknowledged": publisher.unacknowledged}
    return {"sent": publisher.acknowledged, "phase": "done", **counts, "seconds": seconds}


def _write_labels(path: Path, labels: Iterable[Label]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Label._fields)
            writer.writerows(labels)
    except OSError as error:
        raise ConfigurationError(f"--labels {path}: {error.strerror}") from error


def _duration(text: str) -> timedelta:
    try:
        value = parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, got {text!r}") from error
    assert isinstance(value, timedelta)
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text!r}")
    return value


def _interval(text: str) -> timedelta:
    if (value := _duration(text)) < timedelta(milliseconds=1):
        raise argparse.ArgumentTypeError(f"must be at least 1ms, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.simulate.factory", description=__doc__)
    parser.add_argument("--host", default=Options.host, help="the broker's host (%(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="the broker's port (%(default)s)")
    parser.add_argument("--catalogue", type=Path, default=PACKAGED, help="site catalogue, JSON (six packaged sites)")
    parser.add_argument("--rate", type=_above_zero, default=Options.rate, help="live messages a second (%(default)s)")
    parser.add_argument("--history", type=_duration, default=Options.history, help="how far back history goes (6h)")
    parser.add_argument("--history-interval", type=_interval, default=Options.history_interval, help="its step (30s)")
    parser.add_argument("--duration", type=float, help="seconds of the live phase (until SIGTERM)")
    parser.add_argument("--sent", type=Path, help="CSV file to append every acknowledged message to")
    parser.add_argument("--labels", type=Path, help="CSV file for the times in which devices misbehaved")
    parser.add_argument("--seed", type=int, default=Options.seed, help="seed of values and quirks (%(default)s)")
    parser.add_argument("--malformed-every", type=int, default=Options.malformed_every, help="0 = none (%(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the factories; returns the exit code."""
    options = Options(**vars(_parser().parse_args(arguments)))
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: stopped.set())
    try:
        print_line(run(options, stopped))
    except ConfigurationError as error:
        sys.stderr.write(f"factory: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
