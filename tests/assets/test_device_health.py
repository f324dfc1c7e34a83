"""Health of devices: availability from polls, the rest from what agents of several makers tell."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from assets.gold.device_health_5m import device_health_5m
from assets.silver.device_polls import device_polls
from assets.silver.snmp_samples import snmp_samples

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
UNKNOWN = {
    "cpu_ratio": None,
    "memory_used_ratio": None,
    "temperature_celsius": None,
    "ups_load_ratio": None,
    "ups_battery_ratio": None,
}


def frame(table: Any, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{n: row.get(n) for n in table.schema} for row in rows], schema=table.schema)


def polls(*seen: tuple[int, bool]) -> pl.DataFrame:
    rows = [
        {"poll_id": str(s), "is_up": up, "duration_seconds": 0.5, "pdus": 10, "timeouts": 0 if up else 10, **at(s)}
        for s, up in seen
    ]
    return frame(device_polls, rows)


def at(second: float) -> dict[str, Any]:
    return {"device_id": "d:161", "observed_at": T0 + timedelta(seconds=second)}


def samples(*told: tuple[float, str, float | str]) -> pl.DataFrame:
    rows = [
        {
            "metric_oid": oid,
            "metric_value": str(value),
            "numeric_value": None if isinstance(value, str) else value,
            **at(second),
        }
        for second, oid, value in told
    ]
    return frame(snmp_samples, rows)


def health(seen: pl.DataFrame, *told: tuple[float, str, float | str]) -> list[dict[str, Any]]:
    assert device_health_5m.function is not None
    output: pl.DataFrame = device_health_5m.function(seen, samples(*told))
    shuffled = device_health_5m.function(*(each.sample(fraction=1, shuffle=True) for each in (seen, samples(*told))))
    assert output.equals(shuffled), "in any order"
    engine = ("is_final", "revision", "corrected_at", "is_retracted", "batch_id")
    assert output.schema == {n: t for n, t in device_health_5m.schema.items() if n not in engine}
    return output.to_dicts()


def test_a_device_that_tells_nothing_else_is_available_or_not() -> None:
    (row,) = health(polls((0, True), (60, True), (120, False), (240, True)))
    assert (row["window_start"], row["window_end"]) == (T0, T0 + timedelta(minutes=5))
    assert (row["polls"], row["polls_answered"]) == (4, 3)
    assert row["availability_ratio"] == pytest.approx(0.6), "down from 120 to 240 s of 300"
    assert row["response_seconds"] == pytest.approx(0.05)
    assert {name: row[name] for name in UNKNOWN} == UNKNOWN


def test_a_silent_device_has_rows() -> None:
    first, second = health(polls((10, False), (310, False)))
    assert (first["availability_ratio"], first["response_seconds"], second["polls_answered"]) == (0.0, None, 0)


def test_a_host() -> None:
    storage, cpu = "1.3.6.1.2.1.25.2.3.1", "1.3.6.1.2.1.25.3.3.1.2"
    (row,) = health(
        polls((0, True)),
        *((s, f"{cpu}.{n}", load) for s, n, load in ((0, 1, 20), (0, 2, 40), (60, 1, 30), (60, 2, 30))),
        (0, "1.3.6.1.4.1.2021.11.11.0", 5),
        *((s, f"{storage}.2.{n}", f"1.3.6.1.2.1.25.2.1.{kind}") for s in (0, 60) for n, kind in ((1, 2), (31, 4))),
        *((s, f"{storage}.5.{n}", 1000) for s in (0, 60) for n in (1, 31)),
        *((s, f"{storage}.6.{n}", 200 + 5 * s + n) for s in (0, 60) for n in (1, 31)),
    )
    assert row["cpu_ratio"] == pytest.approx(0.3), "hrProcessorLoad is preferred to ssCpuIdle"
    assert row["memory_used_ratio"] == pytest.approx(0.501), "the RAM, as told last"


def test_hosts_of_other_mibs() -> None:
    ucd = "1.3.6.1.4.1.2021"
    (row,) = health(
        polls((0, True)),
        (0, f"{ucd}.11.11.0", 75),
        (0, f"{ucd}.4.5.0", 1000),
        (0, f"{ucd}.4.6.0", 250),
        (0, f"{ucd}.13.16.2.1.3.1", 41_500),
        (0, f"{ucd}.13.16.2.1.3.2", 39_000),
    )
    assert (row["cpu_ratio"], row["memory_used_ratio"]) == (0.25, 0.75)
    assert row["temperature_celsius"] == pytest.approx(41.5)
    cisco = "1.3.6.1.4.1.9.9"
    (row,) = health(
        polls((0, True)),
        (0, f"{cisco}.109.1.1.1.1.7.1", 12),
        *((0, f"{cisco}.48.1.1.1.{column}.{pool}", 100 * column) for column in (5, 6) for pool in (1, 2)),
        (0, f"{cisco}.13.1.3.1.3.1006", 33),
    )
    assert (row["cpu_ratio"], row["temperature_celsius"]) == (0.12, 33.0)
    assert row["memory_used_ratio"] == pytest.approx(5 / 11)


def test_physical_sensors_have_scale_precision_and_state() -> None:
    sensor = "1.3.6.1.2.1.99.1.1.1"
    columns = {1: (8, 9, 1, 242, 1), 2: (8, 8, 0, 25_500, 1), 3: (8, 9, 0, 99, 2), 4: (3, 9, 0, 230, 1)}
    told = [
        (0.0, f"{sensor}.{column}.{index}", float(value))
        for index, values in columns.items()
        for column, value in enumerate(values, 1)
    ]
    (row,) = health(polls((0, True)), *told)
    assert row["temperature_celsius"] == pytest.approx(25.5), "24.2, 25.5, one that is unavailable, and volts"


def test_a_ups() -> None:
    ups = "1.3.6.1.2.1.33.1"
    (row,) = health(
        polls((0, True)),
        *((s, f"{ups}.2.4.0", charge) for s, charge in ((0, 100), (60, 93), (120, 97), (180, -1))),
        *((0, f"{ups}.4.4.1.5.{line}", load) for line, load in ((1, 40), (2, 50), (3, 60))),
        (0, f"{ups}.2.7.0", 27),
    )
    assert (row["ups_load_ratio"], row["ups_battery_ratio"]) == (0.5, 0.93)
    assert row["temperature_celsius"] == 27.0
