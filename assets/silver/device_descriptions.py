"""silver.device_descriptions."""

from datetime import timedelta

import polars as pl

from assets.locations import location_columns, location_parts
from assets.silver.snmp_samples import snmp_samples
from assets.snmp_uptimes import GAP, POLL
from assets.table import UTC_TIME, Window, column, table
from resources.selection import Among
from resources.stored_table import Partition

_SAMPLES = "silver.snmp_samples"
_VALUE = (f"{_SAMPLES}.metric_value", f"{_SAMPLES}.object_name")
_FACTS = {
    "sys_object_id": ("sysObjectID", "What kind of device it is, by its maker"),
    "sys_descr": ("sysDescr", "What it is, in words: hardware, system, version"),
    "sys_name": ("sysName", "Its name"),
    "sys_location": ("sysLocation", "Where it stands, as it says"),
    "sys_contact": ("sysContact", "Who looks after it"),
}

_COLUMNS = (
    column("device_id", pl.String, "Agent as host:port", required=True, lineage=f"{_SAMPLES}.device_id"),
    column("observed_at", UTC_TIME, "From when on it is so", required=True, lineage=f"{_SAMPLES}.observed_at"),
    *(
        column(name, pl.String, f"{what}, {origin}; null if it was not told in the 5 minutes before", lineage=_VALUE)
        for name, (origin, what) in _FACTS.items()
    ),
    *location_columns(_VALUE),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(snmp_samples,),
    key=("device_id", "observed_at"),
    series=("device_id",),
    sender=("device_id",),
    time="observed_at",
    window=Window(size=timedelta(0), reach_ahead=2 * GAP + POLL, reach_back=POLL, has_finality=False),
    reads=("device_id", "metric_oid", "object_name", "metric_value", "poll_id", "observed_at"),
    only=(Among("object_name", [origin for origin, _ in _FACTS.values()]),),
    definition="1",  # another one with other rules: what is stored is computed again
    partitions=(Partition("observed_at", "day"),),
    kinds=("iceberg", "silver", "polars", "snmp"),
    freshness=timedelta(days=1),
)
def device_descriptions(samples: pl.DataFrame) -> pl.DataFrame:
    """One row a moment from which on an SNMP agent describes itself in another way than before.

    Source: sysObjectID, sysDescr, sysName, sysLocation and sysContact of `silver.snmp_samples`. It is so until the next
    row of the device. An agent that was not heard for 5 minutes has a row again, as it may be another one. The location
    is parsed as that of an inventory.
    """
    polls = _polls(samples).sort("device_id", "observed_at", "poll_id")
    filled = polls.with_columns(
        pl.when(pl.col("observed_at") - pl.col(f"{name}_at").forward_fill().over("device_id") <= GAP)
        .then(pl.col(name).forward_fill().over("device_id"))
        .alias(name)
        for name in _FACTS
    )
    is_first = pl.col("observed_at") - pl.col("observed_at").shift(1).over("device_id") > GAP
    has_changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1).over("device_id")) for name in _FACTS)
    rows = filled.filter(is_first.fill_null(True) | has_changed).with_columns(**location_parts("sys_location"))
    return rows.select(c.name for c in _COLUMNS).sort("observed_at", "device_id")


def _polls(samples: pl.DataFrame) -> pl.DataFrame:
    """One row a poll that tells any of the facts, each with its time; a moment of a device is one row."""
    told = {origin: name for name, (origin, _) in _FACTS.items()}
    facts = samples.filter(pl.col("object_name").is_in(list(told)), pl.col("metric_value").is_not_null())
    polls = facts.sort("observed_at", "metric_oid").group_by("device_id", "poll_id", maintain_order=True)
    found = polls.agg(
        pl.col("observed_at").min(),
        *(
            pl.col("metric_value").filter(pl.col("object_name") == origin).last().alias(name)
            for origin, name in told.items()
        ),
    )
    dated = found.with_columns(
        pl.when(pl.col(name).is_not_null()).then("observed_at").alias(f"{name}_at") for name in _FACTS
    )
    return dated.sort("poll_id").unique(["device_id", "observed_at"], keep="first", maintain_order=True)
