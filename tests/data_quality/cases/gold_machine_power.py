"""Pairs of a torque and a speed reading half a second apart."""

from datetime import timedelta

import polars as pl

from assets.calculation import built_in
from tests.data_quality.cases.changes import NOON, Case, put, twice

TABLE = built_in("machine_power")


def rows() -> pl.DataFrame:
    values = {"metric": "power_C1", "torque": 2.0, "speed": 3.0, "power": 1.0, "is_retracted": False, "batch_id": 1}
    place = {"thing": "R1", "axis": "C1"}
    at = [NOON + timedelta(seconds=n) for n in range(20)]
    half = timedelta(milliseconds=500)
    times = ({"observed_at": one, "torque_at": one, "speed_at": one + half} for one in at)
    return pl.DataFrame([{**place, **values, **pair} for pair in times], schema=TABLE.schema)


BAD: list[Case] = [
    (twice, "No two rows have the same thing, axis, torque_at, speed_at"),
    (put(speed_at=NOON - timedelta(seconds=2)), "Torque and speed of a pair are at most 1 s apart"),
    (put(power=-1.0), "power is from 0 to 20000"),
    (put(power=20_001.0), "power is from 0 to 20000"),
]
