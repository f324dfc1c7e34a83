"""Windows of simulated sensors, shaped like gold.sensor_windows_1m."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

T0 = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
READINGS = 20
Fault = Callable[[np.random.Generator, int], Any]


def window(minute: float = 0, **values: Any) -> dict[str, Any]:
    """One window; its statistics are those of readings around 10 unless given."""
    start = T0 + minute * MINUTE
    usual = {"mean": 10.0, "minimum": 8.0, "maximum": 12.0, "stddev": 1.0, "p50": 10.0, "p95": 11.5, "p99": 11.9}
    place = {"site_id": 101, "device_id": 1001, "sensor_id": 1, "unit": "BAR"}
    state = {"readings": READINGS, "first": 10.0, "last": 10.0, "is_final": True, "revision": 0}
    return {**place, "window_start": start, "window_end": start + MINUTE, **usual, **state, **values}


def frame(*windows: dict[str, Any]) -> pl.DataFrame:
    """The windows as a frame with the types of the table."""
    types: dict[str, Any] = {
        "window_start": pl.Datetime("us", "UTC"),
        "window_end": pl.Datetime("us", "UTC"),
        "revision": pl.Int32,
    }
    floats = ("mean", "minimum", "maximum", "stddev", "p50", "p95", "p99", "first", "last")
    return pl.DataFrame(
        windows, schema_overrides={**types, **dict.fromkeys(floats, pl.Float64)}, infer_schema_length=None
    )


def simulated(
    series: int = 12, windows: int = 800, seed: int = 0, fault: Fault | None = None, readings: int = READINGS
) -> pl.DataFrame:
    """Sensors with a level, noise and rhythm of their own; ``is_faulty`` marks five faults of five minutes in each."""
    return pl.concat(
        [_sensor(number, windows, np.random.default_rng([seed, number]), fault, readings) for number in range(series)]
    )


def _sensor(number: int, windows: int, random: np.random.Generator, fault: Fault | None, count: int) -> pl.DataFrame:
    own = np.random.default_rng([42, number])
    level, deviation = own.uniform(10, 500), own.uniform(0.5, 10)
    minutes = np.arange(windows * count) / count
    values = 0.8 * np.sin(2 * np.pi * minutes / 400 + number) + random.normal(size=len(minutes))
    is_faulty = np.zeros(windows, bool)
    for start in random.choice(windows // 10, 5, replace=False) * 10 if fault else ():
        part = slice(start * count, (start + 5) * count)
        values[part] += fault(random, 5 * count) if fault else 0
        is_faulty[start : start + 5] = True
    readings = np.round(level + deviation * values, number % 2).reshape(windows, count)
    p50, p95, p99 = np.quantile(readings, [0.5, 0.95, 0.99], axis=1)
    rows = [window(minute, sensor_id=number, device_id=1000 + number // 4) for minute in range(windows)]
    return frame(*rows).with_columns(
        mean=readings.mean(1),
        minimum=readings.min(1),
        maximum=readings.max(1),
        stddev=readings.std(1, ddof=1),
        p50=p50,
        p95=p95,
        p99=p99,
        first=readings[:, 0],
        last=readings[:, -1],
        readings=pl.lit(count),
        is_faulty=is_faulty,
    )
