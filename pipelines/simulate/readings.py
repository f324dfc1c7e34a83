"""What the sensors of a catalogue send: values, faults, and every quirk of the real senders.

The payloads have the three shapes that factories use; which one follows from the region, now and then another is mixed
in. ``ts`` is a string now and then, units are padded with blanks, device types swap blank and underscore.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pipelines.simulate.catalogue import DAY_SECONDS, Device, Sensor, Site

LIVE_FAULT_EVERY_MS = 60_000
LIVE_FAULT_FROM_MS = 10_000
LIVE_FAULT_FOR_MS = 20_000
_RARELY = 0.01
_SOMETIMES = 0.02
_RAMP = 3.0

Shape = Literal["minimal", "located", "complete"]
_SHAPES: tuple[Shape, ...] = ("minimal", "located", "complete")
_SHAPE_OF_REGION: dict[str, Shape] = {"north": "minimal", "south": "located"}


class Key(NamedTuple):
    """Names a reading; ``unit`` is as sent, trimmed."""

    site_id: int
    device_id: int
    sensor_id: int
    unit: str
    ts_ms: int


class Message(NamedTuple):
    """One payload for one topic; a broken one has no key."""

    topic: str
    payload: bytes
    key: Key | None


Fault = Literal["drift", "spikes", "stuck", "noise", "drop_out"]
FAULTS: tuple[Fault, ...] = ("drift", "spikes", "stuck", "noise", "drop_out")
"""How a device misbehaves; from one time to the next it is another one of these."""


class Label(NamedTuple):
    """A time in which a device misbehaves: each day in its catalogue window, or in each minute of the live phase."""

    site_id: int
    device_id: int
    started_ms: int
    ended_ms: int
    kind: Fault


class _Series:
    """A sensor in its place, what it sent last, and the parts of its payloads that stay the same."""

    def __init__(self, site: Site, device: Device, sensor: Sensor) -> None:
        self.site, self.device, self.sensor = site, device, sensor
        self.last_ms = -1
        self.last_value: float | None = None
        self.digits = max(0, 2 - math.floor(math.log10(sensor.sd)))
        self.shape = _SHAPE_OF_REGION.get(site.region, "complete")
        self.topic = f"factory_iot/{site.region}/{site.site_id}"
        self.key = (site.site_id, device.device_id, sensor.sensor_id, sensor.unit.strip())
        ids = f'"siteId":{site.site_id},"deviceId":{device.device_id},"sensorId":{sensor.sensor_id}'
        self.head, self.padded_head = (
            f',"metadata":{{{ids},"unit":{json.dumps(unit)}' for unit in (sensor.unit, f" {sensor.unit} ")
        )
        self.location = f'"location":{json.dumps(site.location.model_dump(), separators=(",", ":"))}'
        kind = device.device_type
        self.device_type, self.respelled = (f',"deviceType":{json.dumps(text)}' for text in (kind, _respelled(kind)))


class Plant:
    """All sensors of a catalogue; no two of its readings share a key."""

    def __init__(self, sites: Sequence[Site], seed: int) -> None:
        self._random = random.Random(seed)
        self._series = [_Series(s, d, x) for s in sites for d in s.devices for x in d.sensors]
        self._faulty = self._random.choice([series.device for series in self._series])
        self._round: list[_Series] = []
        self._live_ms: int | None = None

    def history(self, start_ms: int, end_ms: int, step_ms: int) -> Iterator[Message]:
        """Yields one reading a sensor and step, oldest steps first; closed sites and devices that dropped out none."""
        order = list(self._series)
        for step in range(start_ms, end_ms, step_ms):
            self._random.shuffle(order)
            for series in order:
                ts_ms = step + self._random.randrange(min(step_ms, end_ms - step))
                if (message := self._message(series, ts_ms)) is not None:
                    yield message

    def live(self, now_ms: int) -> Message | None:
        """The next reading of the round through all sensors; None while that one's site is closed or it dropped out."""
        if self._live_ms is None:
            self._live_ms = now_ms
        if not self._round:
            self._round = self._random.sample(self._series, len(self._series))
        series = self._round.pop()
        return self._message(series, now_ms)

    def labels(self, start_ms: int, end_ms: int) -> Iterator[Label]:
        """Yields the faults within [``start_ms``, ``end_ms``)."""
        for site, device in dict.fromkeys((s.site.site_id, s.device.device_id) for s in self._series):
            series = next(s for s in self._series if (s.site.site_id, s.device.device_id) == (site, device))
            for started, ended, kind in self._fault_times(series, start_ms, end_ms):
                if started < end_ms and ended > start_ms:
                    yield Label(site, device, max(started, start_ms), min(ended, end_ms), kind)

    def _fault_times(self, series: _Series, start_ms: int, end_ms: int) -> Iterator[tuple[int, int, Fault]]:
        if window := series.device.fault_window:
            into_ms = round((series.site.second_of_day(start_ms) - window[0]) % DAY_SECONDS * 1000)
            for started in range(start_ms - into_ms, end_ms, DAY_SECONDS * 1000):
                yield started, started + round(window[1] * 1000), _daily_fault(series, started)
        if series.device is self._faulty and self._live_ms is not None:
            for started in range(self._live_ms + LIVE_FAULT_FROM_MS, end_ms, LIVE_FAULT_EVERY_MS):
                yield started, started + LIVE_FAULT_FOR_MS, self._live_fault(started)

    def _message(self, series: _Series, ts_ms: int) -> Message | None:
        ts_ms = max(ts_ms, series.last_ms + 1)
        if not series.site.is_open(ts_ms) or (value := self._value(series, ts_ms)) is None:
            return None
        series.last_ms = ts_ms
        return Message(series.topic, self._payload(series, ts_ms, value).encode(), Key(*series.key, ts_ms))

    def _payload(self, series: _Series, ts_ms: int, value: float) -> str:
        """Put together from the series' parts: an encoder that starts from a dictionary takes three times as long."""
        rare = self._random.random
        shape = series.shape if rare() >= _SOMETIMES else self._random.choice(_SHAPES)
        metadata = series.head if rare() >= _RARELY else series.padded_head
        if shape != "minimal":
            second, ms = divmod(ts_ms, 1000)
            metadata += f',"ts_human":"{_local_text(second, series.site.offset)}.{ms:03}000",{series.location}'
        if shape == "complete":
            metadata += series.device_type if rare() >= _SOMETIMES else series.respelled
        ts = f"{ts_ms}" if rare() >= _RARELY else f'"{ts_ms}"'
        return f'{{"ts":{ts}{metadata}}},"measurement":{value!r}}}'

    def _value(self, series: _Series, ts_ms: int) -> float | None:
        """Mean, a swing of one sd through the local day, noise of one sd, and the fault; None if it drops out."""
        sensor = series.sensor
        angle = 2 * math.pi * (series.site.second_of_day(ts_ms) / DAY_SECONDS - 0.25)
        value = sensor.mean + sensor.sd * math.sin(angle) + self._random.gauss(0, sensor.sd)
        if (fault := self._fault(series, ts_ms)) is not None:
            kind, progress = fault
            if kind == "drop_out":
                return None
            if kind == "stuck" and series.last_value is not None:
                return series.last_value
            value += self._deviation(series, kind, progress)
        value = min(max(value, sensor.minimum), sensor.maximum)
        series.last_value = round(value, series.digits) if series.digits else round(value)
        return series.last_value

    def _fault(self, series: _Series, ts_ms: int) -> tuple[Fault, float] | None:
        """The fault that holds at ``ts_ms`` and how far it has come, from 0 to 1; None without one."""
        if window := series.device.fault_window:
            progress = (series.site.second_of_day(ts_ms) - window[0]) % DAY_SECONDS / window[1]
            if progress < 1:
                return _daily_fault(series, ts_ms), progress
        if series.device is self._faulty and self._live_ms is not None:
            progress = ((ts_ms - self._live_ms) % LIVE_FAULT_EVERY_MS - LIVE_FAULT_FROM_MS) / LIVE_FAULT_FOR_MS
            if 0 <= progress < 1:
                return self._live_fault(ts_ms), progress
        return None

    def _live_fault(self, ts_ms: int) -> Fault:
        """The fault of the minute of the live phase that ``ts_ms`` is in."""
        return FAULTS[(ts_ms - (self._live_ms or 0)) // LIVE_FAULT_EVERY_MS % len(FAULTS)]

    def _deviation(self, series: _Series, kind: Fault, progress: float) -> float:
        """What the fault adds.

        A drift goes towards an end of the range, reached after a third of the fault; spikes are of 6 to 12 sd; noise
        has 6 sd.
        """
        sensor, unstable = series.sensor, 1 - series.device.stability / 100
        if kind == "noise":
            return self._random.gauss(0, 6 * sensor.sd)
        if kind == "spikes":
            is_spike = self._random.random() < 0.2 + 0.3 * unstable
            return self._random.choice((-1, 1)) * self._random.uniform(6, 12) * sensor.sd if is_spike else 0.0
        if kind == "stuck":  # from the first reading on, there is nothing to be stuck at
            return 0.0
        direction = (sensor.deviation_weight - 5) / 5 or (0.5 if sensor.sensor_id % 2 else -0.5)
        reach = sensor.maximum - sensor.mean if direction > 0 else sensor.mean - sensor.minimum
        return direction * reach * (0.5 + 0.5 * unstable) * min(1.0, _RAMP * progress)


def _daily_fault(series: _Series, ts_ms: int) -> Fault:
    """The fault of the device's window that ``ts_ms`` is in, or of the last one before."""
    assert series.device.fault_window
    since = (ts_ms + 1) / 1000 + series.site.offset.total_seconds() - series.device.fault_window[0]
    return FAULTS[(series.device.device_id + int(since // DAY_SECONDS)) % len(FAULTS)]


def broken(message: Message, kind: int) -> Message:
    """Returns ``message`` with a payload that no reader can use; ``kind`` counts through the ways of breaking it."""
    breakage = _BREAKAGES[kind % len(_BREAKAGES)]
    return Message(message.topic, breakage(message.payload), None)


@lru_cache(maxsize=1024)
def _local_text(second: int, offset: timedelta) -> str:
    return datetime.fromtimestamp(second, timezone(offset)).replace(tzinfo=None).isoformat()


def _respelled(device_type: str) -> str:
    return device_type.replace("_", " ") if "_" in device_type else device_type.replace(" ", "_")


def _with(payload: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(payload)
    change(document)
    return json.dumps(document, separators=(",", ":")).encode()


_BREAKAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda payload: payload[: len(payload) * 2 // 3],
    lambda payload: _with(payload, lambda document: document.update(measurement="high")),
    lambda payload: _with(payload, lambda document: document["metadata"].pop("sensorId")),
    lambda payload: payload.replace(b'"unit":"', b'"unit":"\xff\xfe', 1),
    lambda payload: _with(payload, lambda document: document.update(measurement=math.nan)),
)
