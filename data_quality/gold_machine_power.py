"""What holds of gold.machine_power: the rows of a pair are near each other, and power is capped."""

from typing import Any

import polars as pl

from data_quality.declared import expectation_types

MOST_SECONDS = 1.0
MOST_POWER = 20_000


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds ``seconds_apart``: between the torque and the speed reading."""
    apart = (pl.col("torque_at") - pl.col("speed_at")).dt.total_microseconds().abs()
    return frame.with_columns(seconds_apart=apart / 1e6)


def expectations() -> list[Any]:
    """Expectations beyond the contract."""
    gxe = expectation_types()
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="seconds_apart",
            max_value=MOST_SECONDS,
            description=f"Torque and speed of a pair are at most {MOST_SECONDS:g} s apart",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="power", min_value=0, max_value=MOST_POWER, description=f"power is from 0 to {MOST_POWER}"
        ),
    ]
