"""Readings of a factory: one of each unit that has bounds, and more."""

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from assets.silver.sensor_readings import sensor_readings
from data_quality.silver_sensor_readings import POSSIBLE
from tests.data_quality.cases.changes import NOON, Case, Change, every, put, twice

TABLE = sensor_readings


def rows() -> pl.DataFrame:
    units = sorted(POSSIBLE)
    row = {"site_id": 1, "device_id": 2, "measurement": 50.0, "region": "north", "latitude": 1.0, "longitude": 2.0}
    place = {"stream": "a/b", "sequence": 1, "batch_id": 1}
    return pl.DataFrame(
        [
            {
                **row,
                **place,
                "sensor_id": n,
                "unit": units[n % len(units)],
                "unit_canonical": units[n % len(units)],
                "observed_at": NOON,
                "received_at": NOON + timedelta(seconds=1),
                "row": n,
            }
            for n in range(200)
        ],
        schema=sensor_readings.schema,
    )


def _edges() -> Iterator[tuple[str, float, float]]:
    for unit, (low, high) in POSSIBLE.items():
        yield from ((unit, bound, step) for bound, step in ((low, -1.0), (high, 1.0)) if bound is not None)


def _measures(unit: str, bound: float, step: float) -> Change:
    is_of_unit = pl.col("unit_canonical") == unit
    value = pl.when(is_of_unit).then(bound + step).otherwise("measurement")
    return lambda rows: rows.with_columns(measurement=value)


BAD: list[Case] = [
    (twice, "No two rows have the same site_id, device_id, sensor_id, unit, observed_at"),
    (put(unit_canonical="furlong"), "unit_canonical is a unit of assets/silver/spellings.toml"),
    (
        every(received_at=NOON - timedelta(seconds=6)),
        "In 99% of the readings the sender's clock is at most 5 s ahead",
    ),
    (
        every(received_at=NOON + timedelta(hours=1)),
        "Half of the rows come from observed_at to received_at within 300 s",
    ),
    *((_measures(unit, bound, step), f"A measurement in {unit} is ") for unit, bound, step in _edges()),
]
