"""A small plant for tests of the way from landing to gold: readings go in, tables are compared."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from assets.gold.anomaly_scores import anomaly_scores  # noqa: F401  (registers the declaration's module)
from pipelines.collect.mqtt import RECORD, SOURCE
from pipelines.config import Config, LakehouseConfig
from pipelines.context import Context, open_context
from pipelines.micro_batch import MicroBatches
from resources.landing import LandingLimits, LandingStream

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SERIES = ["site_id", "device_id", "sensor_id", "unit"]
NOT_COMPARED = ["is_final", "revision", "corrected_at", "is_retracted", "batch_id"]
"""What depends on the order of arrival: DESIGN's definition of equal."""


@dataclass(frozen=True)
class Reading:
    """One reading: sensor 0-9, seconds after START, value."""

    sensor: int
    second: float
    value: float

    @property
    def payload(self) -> bytes:
        at = START + timedelta(seconds=self.second)
        metadata = {"siteId": 101, "deviceId": 1000 + self.sensor // 2, "sensorId": 10000 + self.sensor, "unit": "BAR"}
        return json.dumps({"ts": int(at.timestamp() * 1000), "metadata": metadata, "measurement": self.value}).encode()


@dataclass
class Plant:
    """A lakehouse in a folder, with a landing stream that tests write to."""

    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    now: datetime = START + timedelta(hours=6)

    def __post_init__(self) -> None:
        self.context = self.open()
        self.batches = MicroBatches(self.context)
        self.stream = self.new_stream()

    def open(self) -> Context:
        """The context as a new process would open it."""
        context = open_context(Config(lakehouse=LakehouseConfig(path=self.folder), **self.options))
        context.clock = lambda: self.now
        return context

    def new_stream(self, collector: str = "mqtt") -> LandingStream:
        return LandingStream(self.context.landing, SOURCE, collector, RECORD, LandingLimits())

    def land(self, payloads: Iterable[bytes], topic: str = "factory_iot/north/101") -> None:
        """Writes one sealed segment."""
        self.stream.write([("north", topic, 1, False, payload, self.now, None, None) for payload in payloads])
        self.stream.seal()

    def table(self, identifier: str) -> pl.DataFrame:
        stored = self.context.tables[identifier].stored
        self.context.lakehouse.table(stored, refresh=True)
        return self.context.lakehouse.read(stored)

    def drain(self) -> None:
        failed = [r for r in self.batches.drain() if r.error]
        assert not failed, failed


def compared(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Rows without what may differ, in the order of their key."""
    return rows.drop(NOT_COMPARED, strict=False).sort(key)


def one_shot(folder: Path, readings: Sequence[Reading]) -> Plant:
    """The same readings landed once, in event order, and carried in one batch."""
    plant = Plant(folder)
    unique = {(r.sensor, r.second): r for r in readings}
    plant.land(r.payload for r in sorted(unique.values(), key=lambda r: (r.second, r.sensor)))
    plant.drain()
    return plant
