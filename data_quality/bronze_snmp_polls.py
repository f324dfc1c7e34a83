"""What is usual for bronze.snmp_polls beyond its declaration: agents answer, and in time."""

from typing import Any

import polars as pl

from data_quality.declared import expectation_types

MOST = 0.99


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds ``has_answered``: whether the poll's agent answered any poll of these rows."""
    return frame.with_columns(has_answered=pl.col("is_up").any().over("target"))


def expectations() -> list[Any]:
    """Expectations beyond the contract; a silent agent is the agent's fault, so they are warnings."""
    gxe = expectation_types()
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="has_answered",
            value_set=[True],
            severity="warning",
            description="Every agent that is polled has answered lately",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="missed",
            value_set=[0],
            mostly=MOST,
            severity="warning",
            description=f"{MOST:.0%} of the polls are over before the next one is due",
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="error",
            mostly=MOST,
            severity="warning",
            description=f"{MOST:.0%} of the polls are answered without an error",
        ),
    ]
