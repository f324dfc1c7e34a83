"""What holds between the columns of gold.sensor_windows_1m: the order of its statistics; no window is empty."""

from typing import Any

import polars as pl

from data_quality.declared import expectation_types

ORDER = (("minimum", "mean"), ("mean", "maximum"), ("p50", "p95"), ("p95", "p99"), ("p99", "maximum"))
"""Pairs of columns of which the first is never the larger one."""

ROUNDING = 1e-9


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds ``<low>_over_<high>`` for each pair of ``ORDER``: by which share of its size the first exceeds the second.

    A mean is rounded, so that of equal readings may lie a last bit outside of them.
    """
    return frame.with_columns(_excess(low, high).alias(f"{low}_over_{high}") for low, high in ORDER)


def _excess(low: str, high: str) -> pl.Expr:
    size = pl.max_horizontal(pl.col(low).abs(), pl.col(high).abs(), pl.lit(1e-300))
    return (pl.col(low) / size) - (pl.col(high) / size)


def expectations() -> list[Any]:
    """Expectations beyond the contract."""
    gxe = expectation_types()
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="readings", min_value=1, description="A window has at least one reading"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="stddev", min_value=0, description="stddev is not negative (null with one reading)"
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="window_end", column_B="window_start", description="A window ends after it starts"
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=f"{low}_over_{high}", max_value=ROUNDING, description=f"{low} is not above {high}"
            )
            for low, high in ORDER
        ),
    ]
