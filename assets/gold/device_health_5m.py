"""gold.device_health_5m."""

from datetime import timedelta

import polars as pl

from assets.device_measures import BATTERY, CPU, LOAD, MEMORY, TEMPERATURE, measures
from assets.silver.device_polls import device_polls
from assets.silver.snmp_samples import snmp_samples
from assets.table import UTC_TIME, Window, column, table
from resources.stored_table import Partition

_SIZE = timedelta(minutes=5)
_WINDOW = ["device_id", "window_start"]
_POLLS, _SAMPLES = "silver.device_polls", "silver.snmp_samples"
_AT = f"{_POLLS}.observed_at"
_VALUE = (f"{_SAMPLES}.numeric_value", f"{_SAMPLES}.metric_oid")

_COLUMNS = (
    column("device_id", pl.String, "Agent as host:port", required=True, lineage=f"{_POLLS}.device_id"),
    column("window_start", UTC_TIME, "Start of the five minutes", required=True, lineage=_AT),
    column("window_end", UTC_TIME, "End of them, exclusive", required=True, lineage=_AT),
    column("polls", pl.Int32, "Polls that began in the window", required=True, minimum=1, lineage=_AT),
    column(
        "polls_answered",
        pl.Int32,
        "How many of them the agent answered",
        required=True,
        minimum=0,
        lineage=f"{_POLLS}.is_up",
    ),
    column(
        "availability_ratio",
        pl.Float64,
        "Share of the window in which the agent was up: a poll tells it up to the next one, the first one also back",
        required=True,
        minimum=0,
        maximum=1,
        lineage=(f"{_POLLS}.is_up", _AT),
    ),
    column(
        "response_seconds",
        pl.Float64,
        "Mean time of a PDU in answered polls without timeout; null if there is none",
        minimum=0,
        lineage=(f"{_POLLS}.duration_seconds", f"{_POLLS}.pdus", f"{_POLLS}.timeouts"),
    ),
    column(CPU, pl.Float64, "Mean load of the processors; null if the device tells none", minimum=0, lineage=_VALUE),
    column(MEMORY, pl.Float64, "RAM used by RAM; null if the device tells none", minimum=0, lineage=_VALUE),
    column(TEMPERATURE, pl.Float64, "Highest temperature of any sensor; null if the device tells none", lineage=_VALUE),
    column(LOAD, pl.Float64, "Mean load of the UPS; null if the device tells none", minimum=0, lineage=_VALUE),
    column(BATTERY, pl.Float64, "Lowest charge of the UPS; null if the device tells none", minimum=0, lineage=_VALUE),
)


def _availability(polls: pl.DataFrame) -> pl.DataFrame:
    """One row a device and window of its polls; sums are of integers, so that no order of rows changes them."""
    start, end = pl.col("window_start"), pl.col("window_start") + _SIZE
    is_good = pl.col("is_up") & (pl.col("timeouts") == 0)
    at = pl.col("observed_at")
    held = (
        polls.sort(*_WINDOW, "observed_at", "poll_id")
        .with_columns(
            since=pl.when(at.shift(1).over(_WINDOW).is_null()).then(start).otherwise(at),
            until=at.shift(-1).over(_WINDOW).fill_null(end),
        )
        .with_columns(
            held=(pl.col("until") - pl.col("since")).dt.total_microseconds(),
            spent=(pl.col("duration_seconds") * 1e6).round().cast(pl.Int64),
        )
    )
    sums = held.group_by(_WINDOW).agg(
        polls=pl.len().cast(pl.Int32),
        polls_answered=pl.col("is_up").sum().cast(pl.Int32),
        up=pl.col("held").filter("is_up").sum(),
        spent=pl.col("spent").filter(is_good).sum(),
        pdus=pl.col("pdus").filter(is_good & (pl.col("pdus") > 0)).sum().cast(pl.Int64),
    )
    asked = sums.with_columns(pdus=pl.when(pl.col("pdus") > 0).then(pl.col("pdus") * 1_000_000))
    ratio = asked["up"] / (_SIZE // timedelta(microseconds=1))
    return asked.with_columns(availability_ratio=ratio, response_seconds=asked["spent"] / asked["pdus"])


@table(
    layer="gold",
    columns=_COLUMNS,
    inputs=(device_polls, snmp_samples),
    key=("device_id", "window_start"),
    series=("device_id",),
    time="window_start",
    window=Window(size=_SIZE, lateness=timedelta(seconds=30)),
    reads=(
        *("device_id", "observed_at", "poll_id", "is_up", "duration_seconds", "pdus", "timeouts"),
        *("metric_oid", "metric_value", "numeric_value"),
    ),
    definition="1",  # another one with other objects: what is stored is computed again
    partitions=(Partition("window_start", "day"),),
    kinds=("iceberg", "gold", "polars", "snmp"),
    freshness=timedelta(minutes=10),
)
def device_health_5m(polls: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """One row an SNMP agent and five minutes in which it was polled: was it up, how fast, how loaded, how warm.

    Source: `silver.device_polls` for availability and response time, `silver.snmp_samples` for the rest: objects of
    HOST-RESOURCES, ENTITY-SENSOR, UPS-MIB, UCD-SNMP, Cisco and PowerNet, known by OID. A window is emitted as it fills
    and is final 30 s after the device's polls passed its end; one that is silent is polled, too, so it has rows.
    """
    window = pl.col("observed_at").dt.truncate("5m").alias("window_start")
    rows = _availability(polls.with_columns(window)).join(
        measures(samples.with_columns(window)), on=_WINDOW, how="left"
    )
    rows = rows.with_columns(window_end=pl.col("window_start") + _SIZE)
    return rows.select(c.name for c in _COLUMNS).sort("window_start", "device_id")
