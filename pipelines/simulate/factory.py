"""The factories of a catalogue: publishes their past and then their present over MQTT.

History goes as fast as the brokers take it, then live readings until asked to stop. What the brokers acknowledged
stands in the file ``sent``, so that a reader can compare what it stored with what was sent. Standard output carries
JSON lines.
"""

import csv
import heapq
import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pipelines.simulate.catalogue import PACKAGED, Site, load_catalogue
from pipelines.simulate.publisher import Publisher, print_line
from pipelines.simulate.readings import Label, Message, Plant, broken
from pipelines.simulate.sender import Pace, Target
from resources.errors import ConfigurationError, SourceUnavailableError

LABEL_COLUMNS = ("site_id", "device_id", "started_at", "ended_at", "fault")
"""Columns of the file of labels, as reference.fault_labels reads them."""

SITE_COLUMNS = ("site_id", "name", "region", "ranking_score", "latitude", "longitude", "time_zone")
"""Columns of the list of sites, as reference.sites reads them."""

_POLL_SECONDS = 0.02
_HELD_SHARE = 0.05
_HELD_SECONDS = 1.9


@dataclass(frozen=True)
class Options:
    """What to send and where; ``start`` may be ``catalogue``: each site's own start of its history."""

    broker: Target = field(default_factory=Target)
    regions: Mapping[str, Target] = field(default_factory=dict)
    catalogue: Path = PACKAGED
    sites: tuple[int, ...] = ()
    rate: float = 200.0
    history: timedelta = timedelta(hours=6)
    start: datetime | Literal["catalogue"] | None = None
    history_interval: timedelta = timedelta(seconds=30)
    duration: float | None = None
    sent: Path | None = None
    labels: Path | None = None
    site_list: Path | None = None
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
        started, pace = time.monotonic(), Pace(self._options.rate)
        ends = started + self._options.duration if self._options.duration is not None else float("inf")
        while (now := time.monotonic()) < ends and not stopped.is_set():
            self._release(now)
            if wait := pace.wait(now):
                time.sleep(min(wait, _POLL_SECONDS))
                self._publisher.collect(True)
            elif (message := self._plant.live(time.time_ns() // 1_000_000)) is not None:
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


def run(options: Options, stopped: threading.Event) -> None:
    """Sends history, then live readings, and prints the summary.

    Raises:
        ConfigurationError: the catalogue is wrong, or a file cannot be written.
        SourceUnavailableError: a broker did not acknowledge what was sent.
    """
    sites = _chosen(load_catalogue(options.catalogue), options.sites)
    plant = Plant(sites, options.seed)
    started, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    from_ms, starts = _starts(options, sites, now_ms)
    if options.labels is not None:
        write_labels(options.labels, ())  # a path that cannot be written is told now
    if options.site_list is not None:
        write_sites(options.site_list, sites)
    try:
        publisher = Publisher(options.broker, options.regions, options.sent, stopped)
    except OSError as error:
        raise ConfigurationError(f"--sent {options.sent}: {error.strerror}") from error
    try:
        for message in plant.history(from_ms, now_ms, options.history_interval // timedelta(milliseconds=1)):
            if stopped.is_set():
                break
            if message.key is None or message.key.ts_ms >= starts.get(message.key.site_id, from_ms):
                publisher.publish(message, False)
        _tell_labels(options, plant, from_ms, starts)
        LivePhase(options, plant, publisher).run(stopped)
    finally:
        publisher.close()
    _tell_labels(options, plant, from_ms, starts)
    seconds = round(time.monotonic() - started, 3)
    counts = {**publisher.counts, "unacknowledged": publisher.unacknowledged}
    problems = {"problems": publisher.problems} if publisher.problems else {}
    print_line({"sent": publisher.acknowledged, "phase": "done", **counts, "seconds": seconds, **problems})
    if publisher.unacknowledged:
        told = "; ".join(publisher.problems) or "the broker did not answer in time"
        raise SourceUnavailableError(f"{publisher.unacknowledged} readings were not acknowledged: {told}")


def _chosen(sites: tuple[Site, ...], wanted: tuple[int, ...]) -> tuple[Site, ...]:
    known = {site.site_id: site for site in sites}
    if unknown := sorted(set(wanted) - known.keys()):
        raise ConfigurationError(f"--sites: must be of {sorted(known)}, got {unknown[0]}")
    return tuple(known[site] for site in wanted) if wanted else sites


def _starts(options: Options, sites: tuple[Site, ...], now_ms: int) -> tuple[int, dict[int, int]]:
    """When the history starts, in ms, and when it does for each site that has a time of its own."""
    if options.start is None:
        return now_ms - options.history // timedelta(milliseconds=1), {}
    if options.start != "catalogue":
        start = options.start if options.start.tzinfo else options.start.replace(tzinfo=UTC)
        return round(start.timestamp() * 1000), {}
    starts = {site.site_id: now_ms if site.history_ms is None else site.history_ms for site in sites}
    return min(starts.values()), starts


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tell_labels(options: Options, plant: Plant, from_ms: int, starts: Mapping[int, int]) -> None:
    """Writes the faults until now, where a file for them is wanted."""
    if options.labels is not None:
        labels = plant.labels(from_ms, time.time_ns() // 1_000_000)
        write_labels(options.labels, (one for one in labels if one.ended_ms > starts.get(one.site_id, from_ms)))


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """Replaces a CSV file of faults, as ``reference.fault_labels`` reads it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    rows = ((*label[:2], _utc(label.started_ms), _utc(label.ended_ms), label.kind) for label in labels)
    _write_csv("--labels", path, LABEL_COLUMNS, rows)


def write_sites(path: Path, sites: Iterable[Site]) -> None:
    """Replaces a CSV file of sites, as ``reference.sites`` reads it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    rows = (
        (s.site_id, s.name, s.region, s.ranking_score, s.location.latitude, s.location.longitude, _offset(s.offset))
        for s in sites
    )
    _write_csv("--site-list", path, SITE_COLUMNS, rows)


def _offset(offset: timedelta) -> str:
    minutes = abs(offset) // timedelta(minutes=1)
    return f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"


def _write_csv(option: str, path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
        draft.replace(path)  # whoever reads it has all of it
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}") from error
