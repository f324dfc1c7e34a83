"""silver.counter_rates."""

from datetime import timedelta

import polars as pl

from assets.counter_steps import LOOK_BACK, REACH_AHEAD, REACH_BACK, READS, STEPS, counter_steps
from assets.silver.snmp_samples import snmp_samples
from assets.table import UTC_TIME, Window, column, table
from resources.stored_table import Partition

_SAMPLES = "silver.snmp_samples"
_AT, _COUNT = f"{_SAMPLES}.observed_at", f"{_SAMPLES}.counter_value"
_FACT = f"{_SAMPLES}.numeric_value"

_COLUMNS = (
    column("device_id", pl.String, "Agent as host:port", required=True, lineage=f"{_SAMPLES}.device_id"),
    column(
        "counter",
        pl.String,
        "Name of the object, e.g. ifHCInOctets; the whole OID where it is not known",
        required=True,
        lineage=(f"{_SAMPLES}.object_name", f"{_SAMPLES}.metric_oid"),
    ),
    column(
        "instance_id",
        pl.String,
        "Which one of its kind: of an interface what it keeps when it is numbered anew, e.g. ifName:Gi0/3 (else of "
        "ifDescr, ifAlias, ifPhysAddress, ifIndex); else the row's INDEX values; empty where the object is not known",
        required=True,
        lineage=(f"{_SAMPLES}.instance", f"{_SAMPLES}.metric_value"),
    ),
    column("observed_at", UTC_TIME, "Time of the sample, the end of its step", required=True, lineage=_AT),
    column("before_at", UTC_TIME, "Time of the sample before it, at most 5 minutes earlier; else null", lineage=_AT),
    column("counter_value", pl.Decimal(20, 0), "The count", required=True, minimum=0, lineage=_COUNT),
    column("counter_before", pl.Decimal(20, 0), "The count of the sample before it", minimum=0, lineage=_COUNT),
    column(
        "step",
        pl.String,
        "How the step is judged: " + "; ".join(f"{step}: {meaning}" for step, meaning in STEPS.items()),
        required=True,
        lineage=(_COUNT, _AT, _FACT),
    ),
    column(
        "delta",
        pl.Decimal(20, 0),
        "What passed over the step, a wrap regarded; null unless it is normal or a wrap",
        minimum=0,
        lineage=(_COUNT, _FACT),
    ),
    column("rate_per_second", pl.Float64, "delta by the time of the step", minimum=0, lineage=(_COUNT, _AT, _FACT)),
    column("data_type", pl.String, "Counter32 or Counter64", required=True, lineage=f"{_SAMPLES}.data_type"),
    column(
        "metric_oid", pl.String, "OID of the sample, with instance", required=True, lineage=f"{_SAMPLES}.metric_oid"
    ),
    column("mib_module", pl.String, "Module of the object", lineage=f"{_SAMPLES}.mib_module"),
    column(
        "if_index",
        pl.Int64,
        "ifIndex at that time, where the counter is of an interface",
        lineage=f"{_SAMPLES}.instance",
    ),
    column("if_name", pl.String, "ifName of the interface, else ifDescr", lineage=f"{_SAMPLES}.metric_value"),
    column(
        "speed_bits_per_second",
        pl.Float64,
        "Speed of the interface: ifHighSpeed * 10^6, else ifSpeed that is not saturated",
        minimum=0,
        lineage=_FACT,
    ),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(snmp_samples,),
    key=("device_id", "counter", "instance_id", "observed_at"),
    series=("device_id",),
    sender=("device_id",),
    time="observed_at",
    window=Window(size=timedelta(0), reach_ahead=REACH_AHEAD, reach_back=REACH_BACK, has_finality=False),
    reads=READS,
    look_back=LOOK_BACK,
    definition="3",  # another one with other rules: what is stored is judged again
    partitions=(Partition("observed_at", "hour"),),
    sort=("observed_at", "device_id", "counter", "instance_id"),
    kinds=("iceberg", "silver", "polars", "snmp"),
    freshness=timedelta(minutes=5),
)
def counter_rates(samples: pl.DataFrame) -> pl.DataFrame:
    """One row a sample of a counter: what has passed since the sample before it, and how that step is judged.

    Source: Counter32 and Counter64 of `silver.snmp_samples`. Two samples in a row, at most 5 minutes apart, are a step.
    It has a rate where it is normal or a wrap. Restarts are told by sysUpTime (its roll-over after 497 days is none)
    and ifCounterDiscontinuityTime; octets of an interface are compared with its speed. A late sample judges the steps
    that it touches again.
    """
    return counter_steps(samples).select(c.name for c in _COLUMNS)
