"""The site catalogue: which sensors stand in which factory, and when their devices misbehave.

Reads the JSON list that the factories' own generator reads; keys that only that generator knows are passed over.
"""

import json
import re
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from resources.errors import ConfigurationError

PACKAGED = Path(__file__).with_name("sites.json")
DAY_SECONDS = 86_400
_NO_PREFERENCE = 5.0
_REGIONS = {
    "north": (101, 104),
    "south": (102, 105),
    "east": (103, 106, 107, 108, 109),
    "west": (110, 111),
    "central": (112, 113, 114),
}


def _offset(value: Any) -> Any:
    """Turns ``"+2:00"`` into a timedelta."""
    if not isinstance(value, str) or not (match := re.fullmatch(r"([+-]?)(\d{1,2}):(\d{2})", value.strip())):
        raise ValueError("must be an offset from UTC like '+2:00'")
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return -offset if match[1] == "-" else offset


_TimeOfDay = Annotated[time | None, BeforeValidator(lambda value: value or None)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class Sensor(_Entry):
    """One sensor: normal values scatter by ``sd`` around ``mean`` and stay within the range.

    ``deviation_weight`` (0 to 10) says where a fault drives it: above 5 up, below 5 down, 5 either way.
    """

    sensor_id: int = Field(alias="sensorId")
    unit: str
    minimum: float = Field(alias="min_range")
    maximum: float = Field(alias="max_range")
    mean: float
    sd: float = Field(gt=0)
    deviation_weight: float = Field(default=_NO_PREFERENCE, ge=0, le=10)


class Device(_Entry):
    """One machine with its sensors, its stability in percent and the daily window in which it misbehaves."""

    device_id: int = Field(alias="deviceId")
    device_type: str = Field(alias="deviceType")
    stability: float = Field(default=100, alias="stabilityFactor", ge=0, le=100)
    fault_start: _TimeOfDay = Field(default=None, alias="sfd_start_time")
    fault_end: _TimeOfDay = Field(default=None, alias="sfd_end_time")
    sensors: tuple[Sensor, ...]

    @cached_property
    def fault_window(self) -> tuple[float, float] | None:
        """Start and length of the daily window in seconds of the local day; None without one."""
        if self.fault_start is None or self.fault_end is None or self.fault_start == self.fault_end:
            return None
        start = _seconds(self.fault_start)
        return start, (_seconds(self.fault_end) - start) % DAY_SECONDS


class Location(_Entry):
    """Degrees."""

    latitude: float
    longitude: float


class Site(_Entry):
    """One factory; ``region`` follows from its id where the file does not say it."""

    site_id: int = Field(alias="siteId")
    name: str = ""
    ranking_score: float | None = Field(default=None, alias="rankingScore")
    region: str
    location: Location
    offset: Annotated[timedelta, BeforeValidator(_offset)] = Field(alias="time_zone")
    history_starts: datetime | None = Field(default=None, alias="historic_data_start_datetime")
    opens: _TimeOfDay = Field(default=None, alias="operational_start_time")
    closes: _TimeOfDay = Field(default=None, alias="operational_end_time")
    devices: tuple[Device, ...]

    @model_validator(mode="before")
    @classmethod
    def _region_of_id(cls, value: Any) -> Any:
        if isinstance(value, dict) and "region" not in value:
            regions = [name for name, ids in _REGIONS.items() if value.get("siteId") in ids]
            if not regions:
                raise ValueError(
                    f"site {value.get('siteId')!r} has no known region; ids 101 to 114 have, or add a region"
                )
            return {**value, "region": regions[0]}
        return value

    @property
    def history_ms(self) -> int | None:
        """Milliseconds since 1970 of the time at which the catalogue lets the site's history start, local time."""
        if self.history_starts is None:
            return None
        return round((self.history_starts.replace(tzinfo=UTC) - self.offset).timestamp() * 1000)

    @cached_property
    def offset_seconds(self) -> float:
        """Local time less UTC."""
        return self.offset.total_seconds()

    def second_of_day(self, ts_ms: int) -> float:
        """Local seconds since midnight at ``ts_ms``."""
        return (ts_ms / 1000 + self.offset_seconds) % DAY_SECONDS

    def is_open(self, ts_ms: int) -> bool:
        """Whether the site works at ``ts_ms``; one without operational hours always does."""
        if self._hours is None:
            return True
        start, length = self._hours
        return (self.second_of_day(ts_ms) - start) % DAY_SECONDS <= length

    @cached_property
    def _hours(self) -> tuple[float, float] | None:
        """Start and length of the operational hours in seconds of the local day; None if it is always open."""
        if self.opens is None or self.closes is None or self.opens == self.closes:
            return None
        start = _seconds(self.opens)
        return start, (_seconds(self.closes) - start) % DAY_SECONDS


def load_catalogue(path: Path = PACKAGED) -> tuple[Site, ...]:
    """Reads a catalogue file.

    Raises:
        ConfigurationError: the file cannot be read, is no catalogue, lists no sensor, or a series twice.
    """
    try:
        sites = TypeAdapter(tuple[Site, ...]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path}: {place} {text}, got {first['input']!r:.80}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: is no JSON: {error}") from error
    if not any(device.sensors for site in sites for device in site.devices):
        raise ConfigurationError(f"{path}: lists no sensor; a catalogue has sites with devices with sensors")
    _refuse_duplicates(path, sites)
    return sites


def _refuse_duplicates(path: Path, sites: tuple[Site, ...]) -> None:
    """Two sensors of one key could send the same event key twice."""
    seen: set[tuple[int, int, int, str]] = set()
    for site, device, sensor in ((s, d, x) for s in sites for d in s.devices for x in d.sensors):
        key = (site.site_id, device.device_id, sensor.sensor_id, sensor.unit.strip())
        if key in seen:
            raise ConfigurationError(f"{path}: site, device, sensor, unit {key} stands twice; a series is listed once")
        seen.add(key)


def _seconds(at: time) -> float:
    return at.hour * 3600 + at.minute * 60 + at.second
