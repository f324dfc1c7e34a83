"""What is usual for silver.snmp_samples beyond its declaration: counters count up, values have names."""

from typing import Any

import polars as pl

from data_quality.declared import expectation_types

REFERENCES = {"reference.devices": ("device_id",)}
MOST_NAMED = 0.5
_SERIES = ["device_id", "metric_oid"]
_UPTIME = "1.3.6.1.2.1.1.3.0"
_TOLERANCE = pl.duration(seconds=5)  # the clocks of agent and collector differ
_TOP = {"Counter32": 2.0**32, "Counter64": 2.0**64}


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds ``went_back``: whether a counter is below its sample before, with neither a wrap nor a restart between.

    A wrap is a step from the upper half of the counter's range to the lower one. A restart is told by the agent's
    sysUpTime as it was polled last before the sample or first after it; null where it was not, as nobody can tell then.
    """
    counters = frame.select(*_SERIES, "observed_at", "data_type", "counter_value").with_row_index("_row")
    counters = counters.filter(pl.col("counter_value").is_not_null()).sort("observed_at", *_SERIES)
    uptimes = (
        frame.filter(pl.col("metric_oid") == _UPTIME, pl.col("numeric_value").is_not_null())
        .select("device_id", "observed_at", since=pl.col("observed_at") - _hundredths("numeric_value"))
        .sort("observed_at")
    )
    value, half = pl.col("counter_value").cast(pl.Float64), pl.col("data_type").replace_strict(_TOP, default=0.0) / 2
    judged = (
        counters.with_columns(
            _before=value.shift(1).over(_SERIES), _before_at=pl.col("observed_at").shift(1).over(_SERIES)
        )
        .join_asof(uptimes, on="observed_at", by="device_id", strategy="backward", check_sortedness=False)
        .join_asof(
            uptimes, on="observed_at", by="device_id", strategy="forward", check_sortedness=False, suffix="_after"
        )
        .select(
            "_row",
            went_back=(value < pl.col("_before"))
            & ~((pl.col("_before") >= half) & (value < half))
            & (pl.max_horizontal("since", "since_after") < pl.col("_before_at") - _TOLERANCE),
        )
    )
    return frame.with_row_index("_row").join(judged, on="_row", how="left", maintain_order="left").drop("_row")


def _hundredths(name: str) -> pl.Expr:
    return pl.duration(milliseconds=pl.col(name) * 10)


def expectations() -> list[Any]:
    """Expectations beyond the contract; a device that counts backwards is the device's fault, so they are warnings."""
    gxe = expectation_types()
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="went_back",
            value_set=[False],
            severity="warning",
            description="A counter goes back only by a wrap or a restart of the agent",
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="object_name",
            mostly=MOST_NAMED,
            severity="warning",
            description=f"{MOST_NAMED:.0%} of the values have a name (secchi mib load brings more)",
        ),
    ]
