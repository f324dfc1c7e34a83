"""Minutes of sensors that say 0.1 all the time."""

from datetime import timedelta

import polars as pl

from assets.calculation import built_in
from tests.data_quality.cases.changes import NOON, Case, put, twice

TABLE = built_in("sensor_windows_1m")


def rows() -> pl.DataFrame:
    values = {
        "mean": 0.1,
        "minimum": 0.1,
        "maximum": 0.1,
        "p50": 0.1,
        "p95": 0.1,
        "p99": 0.1,
        "first": 0.1,
        "last": 0.1,
    }
    place = {
        "site_id": 1,
        "device_id": 2,
        "unit": "BAR",
        "window_start": NOON,
        "window_end": NOON + timedelta(minutes=1),
    }
    state = {"readings": 3, "stddev": None, "is_final": True, "revision": 0, "is_retracted": False, "batch_id": 1}
    return pl.DataFrame([{**place, **values, **state, "sensor_id": n} for n in range(20)], schema=TABLE.schema)


BAD: list[Case] = [
    (twice, "No two rows have the same site_id"),
    (put(readings=0), "A window has at least one reading"),
    (put(stddev=-1.0), "stddev is not negative (null with one reading)"),
    (put(window_end=NOON), "A window ends after it starts"),
    (put(minimum=0.2), "minimum is not above mean"),
    (put(mean=0.2), "mean is not above maximum"),
    (put(p50=0.2), "p50 is not above p95"),
    (put(p95=0.2), "p95 is not above p99"),
    (put(p99=0.2), "p99 is not above maximum"),
]
