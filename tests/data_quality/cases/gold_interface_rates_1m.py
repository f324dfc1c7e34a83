"""Minutes of an interface that is half full."""

from datetime import timedelta

import polars as pl

from assets.gold.interface_rates_1m import interface_rates_1m
from tests.data_quality.cases.changes import NOON, Case, put, twice

TABLE = interface_rates_1m


def rows() -> pl.DataFrame:
    place = {"device_id": "sw1:161", "interface_id": "ifName:Gi1", "if_index": 1, "batch_id": 1, "is_retracted": False}
    ways = {f"{way}_{name}": value for way in ("in", "out") for name, value in _WAY.items()}
    steps = {name: 1 for name in TABLE.schema if name.startswith("steps_")}
    times = ({"window_start": NOON + timedelta(minutes=n)} for n in range(20))
    state = {"speed_bits_per_second": 1e9, "is_final": True, "revision": 0}
    frame = pl.DataFrame([{**place, **ways, **steps, **state, **at} for at in times], schema=TABLE.schema)
    return frame.with_columns(window_end=pl.col("window_start") + timedelta(minutes=1))


_WAY = {"bits_per_second": 5e8, "utilisation_ratio": 0.5}

BAD: list[Case] = [
    (twice, "No two rows have the same device_id, interface_id, window_start"),
    (put(in_utilisation_ratio=1.2), "in_bits_per_second is at most 1.1 times the speed of the link"),
    (put(out_utilisation_ratio=1.2), "out_bits_per_second is at most 1.1 times the speed of the link"),
    (put(speed_bits_per_second=-1.0), "speed_bits_per_second is from 0 to any"),
]
