"""gold.interface_rates_1m."""

from datetime import timedelta

import polars as pl

from assets.counter_steps import GOOD
from assets.silver.counter_rates import counter_rates
from assets.table import MINUTE, UTC_TIME, Window, column, table
from resources.stored_table import Partition

_INTERFACE = ["device_id", "interface_id"]
_WIDE = {"ifHCInOctets": "in", "ifHCOutOctets": "out"}
_NARROW = {"ifInOctets": "in", "ifOutOctets": "out"}
_RATES = "silver.counter_rates"
_STEP = (f"{_RATES}.delta", f"{_RATES}.step", f"{_RATES}.before_at", f"{_RATES}.observed_at")
_KINDS = {
    "normal": ("normal",),
    "wrap": ("wrap32", "wrap64"),
    "reset": ("reset", "reboot", "discontinuity"),
    "gap": ("gap",),
    "implausible": ("implausible",),
}


def _steps(rates: pl.DataFrame) -> pl.DataFrame:
    """The steps of octet counters in order; 32-bit ones only where the interface has no others in that minute."""
    steps = (
        rates.filter(pl.col("counter").is_in([*_WIDE, *_NARROW]), pl.col("if_index").is_not_null())
        .with_columns(
            interface_id="instance_id",
            direction=pl.col("counter").replace_strict(_WIDE | _NARROW, return_dtype=pl.String),
            window_start=pl.col("observed_at").dt.truncate("1m"),
            is_wide=pl.col("counter").is_in(list(_WIDE)),
            microseconds=pl.when(pl.col("step").is_in(GOOD)).then(
                (pl.col("observed_at") - pl.col("before_at")).dt.total_microseconds()
            ),
            octets=pl.col("delta").cast(pl.Int128),
        )
        .sort("observed_at", "metric_oid")
    )
    wide = steps.filter("is_wide").select(*_INTERFACE, "window_start", "direction").unique()
    narrow = steps.filter(~pl.col("is_wide")).join(
        wide, on=wide.columns, how="anti", nulls_equal=True, maintain_order="left"
    )
    return pl.concat([steps.filter("is_wide"), narrow]).sort("observed_at", "metric_oid")


def _passed(direction: str) -> tuple[pl.Expr, pl.Expr]:
    """Bits (in millionths) and microseconds of good steps: sums of integers, so that no order of rows changes them."""
    good = (pl.col("direction") == direction) & pl.col("octets").is_not_null()
    octets, microseconds = (pl.col(name).filter(good).sum() for name in ("octets", "microseconds"))
    return (
        (octets.cast(pl.Float64) * 8e6).alias(f"{direction}_bits"),
        pl.when(microseconds > 0).then(microseconds).alias(f"{direction}_microseconds"),
    )


def _divided(frame: pl.DataFrame, name: str, dividend: str, divisor: str) -> pl.DataFrame:
    # Not an expression: that multiplies by the reciprocal where the divisor happens to be one value for all rows, so
    # the last bit would depend on which other rows are computed with this one (polars 2.1).
    return frame.with_columns((frame[dividend] / frame[divisor]).alias(name))


def _last(name: str) -> pl.Expr:
    return pl.col(name).drop_nulls().last()


_COLUMNS = (
    column("device_id", pl.String, "Agent as host:port", required=True, lineage=f"{_RATES}.device_id"),
    column(
        "interface_id",
        pl.String,
        "What the interface keeps when the agent numbers its interfaces anew, e.g. ifName:Gi0/3",
        required=True,
        lineage=f"{_RATES}.instance_id",
    ),
    column(
        "if_index", pl.Int64, "ifIndex of the interface at the last step", required=True, lineage=f"{_RATES}.if_index"
    ),
    column("if_name", pl.String, "ifName, else ifDescr, of the last step that has one", lineage=f"{_RATES}.if_name"),
    column("window_start", UTC_TIME, "Start of the minute", required=True, lineage=f"{_RATES}.observed_at"),
    column("window_end", UTC_TIME, "End of the minute, exclusive", required=True, lineage=f"{_RATES}.observed_at"),
    *(
        column(
            f"{direction}_bits_per_second",
            pl.Float64,
            f"Mean rate {way} over the good steps; null if there is none",
            minimum=0,
            lineage=_STEP,
        )
        for direction, way in (("in", "received"), ("out", "sent"))
    ),
    *(
        column(
            f"{direction}_utilisation_ratio",
            pl.Float64,
            f"{direction}_bits_per_second by speed_bits_per_second; null if either is not known",
            minimum=0,
            lineage=(*_STEP, f"{_RATES}.speed_bits_per_second"),
        )
        for direction in ("in", "out")
    ),
    column(
        "speed_bits_per_second",
        pl.Float64,
        "Speed of the interface at the last step that has one",
        minimum=0,
        lineage=f"{_RATES}.speed_bits_per_second",
    ),
    *(
        column(
            f"steps_{name}",
            pl.Int32,
            f"Steps of octet counters, both ways, judged {' or '.join(judged)}",
            required=True,
            lineage=f"{_RATES}.step",
        )
        for name, judged in _KINDS.items()
    ),
)


@table(
    layer="gold",
    columns=_COLUMNS,
    inputs=(counter_rates,),
    key=("device_id", "interface_id", "window_start"),
    series=("device_id",),
    time="window_start",
    window=Window(size=MINUTE, lateness=timedelta(seconds=30)),
    definition="2",  # another one with other rules: what is stored is computed again
    partitions=(Partition("window_start", "hour"),),
    kinds=("iceberg", "gold", "polars", "snmp"),
    freshness=timedelta(minutes=10),
)
def interface_rates_1m(rates: pl.DataFrame) -> pl.DataFrame:
    """One row an interface and minute in which its octet counters were polled: rates, utilisation, kinds of step.

    Source: the steps of ifHCInOctets and ifHCOutOctets (RFC 2863) in `silver.counter_rates`, as they are judged there;
    of ifInOctets and ifOutOctets where an agent has no others. A step belongs to the minute of its later sample.
    Minutes are emitted as they fill and are final 30 s after the device's watermark passed their end.
    """
    found = (
        _steps(rates)
        .group_by(*_INTERFACE, "window_start", maintain_order=True)
        .agg(
            _last("if_index"),
            _last("if_name"),
            _last("speed_bits_per_second"),
            *_passed("in"),
            *_passed("out"),
            *(pl.col("step").is_in(judged).sum().cast(pl.Int32).alias(f"steps_{n}") for n, judged in _KINDS.items()),
        )
    )
    rows = found.with_columns(window_end=pl.col("window_start") + MINUTE)
    for way in ("in", "out"):
        rows = _divided(rows, f"{way}_bits_per_second", f"{way}_bits", f"{way}_microseconds")
        rows = _divided(rows, f"{way}_utilisation_ratio", f"{way}_bits_per_second", "speed_bits_per_second")
    return rows.select(c.name for c in _COLUMNS).sort("window_start", *_INTERFACE)
