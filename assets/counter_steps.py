"""How one step of a counter is judged: what has passed between two samples of it, and whether that can be told.

Whether a step is over a restart is known from sysUpTime and ifCounterDiscontinuityTime (RFC 2863 section 3.1.15), never
from the counter alone; a counter that went back has wrapped only where something speaks for it.
"""

from datetime import timedelta

import polars as pl

from assets.look_back import LookBack
from assets.snmp_interfaces import if_index, untold, visits
from assets.snmp_uptimes import GAP, POLL, uptimes, with_uptimes
from resources.row_order import sort_rows
from resources.selection import Among, Where

REACH_AHEAD = 2 * GAP + POLL
"""A sample judges the step that begins with it, and what it tells of an interface counts for as long as that."""

REACH_BACK = POLL
"""What a poll tells late counts for what it read first."""

READS = (
    *("device_id", "metric_oid", "object_name", "mib_module", "instance", "instance_identifier", "data_type"),
    *("metric_value", "numeric_value", "counter_value", "poll_id", "observed_at"),
)
"""Columns of the samples."""

STEPS = {
    "normal": "it went on",
    "wrap32": "it passed 2^32",
    "wrap64": "it passed 2^64",
    "reset": "it went back, and nothing speaks for a wrap",
    "reboot": "the agent started anew, as sysUpTime tells",
    "discontinuity": "ifCounterDiscontinuityTime changed",
    "gap": "there is no sample in the 5 minutes before",
    "implausible": "more passed than the link can carry",
}
"""Judgement to meaning."""

GOOD = ("normal", "wrap32", "wrap64")
"""Steps that have a rate."""

_SERIES = ["device_id", "counter", "instance_id"]
_OCTETS = ("ifInOctets", "ifOutOctets", "ifHCInOctets", "ifHCOutOctets")
# Polls jitter, and some agents bring their counters up to date every 10 s only.
_PLAUSIBLE_RATIO = 1.1
_PLAUSIBLE_SECONDS = 10.0


def _beside(samples: pl.DataFrame) -> tuple[Where, ...]:
    return (Among("object_name", ["sysUpTime", *untold(samples)]),)


_TRUSTED = timedelta(seconds=45)  # what is polled more often is computed from what is near; the default is 30 s
LOOK_BACK = LookBack(near=_TRUSTED + POLL, trusted=_TRUSTED, since="before_at", beside=_beside)
"""A step is right with its two samples, whose polls may have begun a minute before them, and what other polls tell."""


def counter_steps(samples: pl.DataFrame) -> pl.DataFrame:
    """One row a sample of a counter, with the step from the sample before it and its judgement.

    Args:
        samples: rows of silver.snmp_samples, in any order: those of the steps, and within ``REACH_AHEAD`` before and
            ``REACH_BACK`` behind them.
    """
    counters = _counters(samples)
    told = uptimes(samples)
    known = counters.join(visits(counters, samples, told), on=["device_id", "if_index", "poll_id"], how="left")
    steps = _with_samples_before(known.with_columns(instance_id=pl.coalesce("interface_id", "instance_id")))
    return _judged(_with_reboots(steps, told))


def _counters(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.filter(pl.col("counter_value").is_not_null()).select(
        "device_id",
        "metric_oid",
        "mib_module",
        "data_type",
        "poll_id",
        "observed_at",
        "counter_value",
        if_index=if_index(),
        counter=pl.coalesce("object_name", "metric_oid"),
        instance_id=pl.when(pl.col("object_name").is_null())
        .then(pl.lit(""))
        .otherwise(pl.coalesce("instance", "instance_identifier", pl.lit(""))),
        count=pl.col("counter_value").cast(pl.Int128),
    )


def _with_samples_before(counters: pl.DataFrame) -> pl.DataFrame:
    ordered = sort_rows(counters, [*_SERIES, "observed_at", "metric_oid"])
    is_near = pl.all_horizontal(pl.col(c) == pl.col(c).shift(1) for c in _SERIES) & (
        pl.col("observed_at") - pl.col("observed_at").shift(1) <= GAP
    )
    before = {
        "before_at": "observed_at",
        "counter_before": "counter_value",
        "_count": "count",
        "_told": "discontinuity",
    }
    return ordered.with_columns(
        pl.when(is_near).then(pl.col(name).shift(1)).alias(column) for column, name in before.items()
    )


def _with_reboots(steps: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Adds whether the agent started within the step, and whether it is known that it did not."""
    moments = with_uptimes(steps.select("device_id", "observed_at").unique(), told)
    joined = steps.join(moments, on=["device_id", "observed_at"], how="left", maintain_order="left")
    is_within = (
        pl.col(f"zero_at{x}").is_between("before_at", "observed_at", closed="right") & ~pl.col(f"has_rolled{x}")
        for x in ("", "_behind")
    )
    return joined.with_columns(
        has_rebooted=pl.any_horizontal(each.fill_null(False) for each in is_within),
        has_uptime=pl.any_horizontal(pl.col("zero_at", "zero_at_behind").is_not_null()),
    )


def _judged(steps: pl.DataFrame) -> pl.DataFrame:
    is_32, grown = pl.col("data_type") == "Counter32", pl.col("count") - pl.col("_count")
    microseconds = (pl.col("observed_at") - pl.col("before_at")).dt.total_microseconds()
    timed = steps.with_columns(
        grown=grown,
        wrapped=grown + pl.when(is_32).then(pl.lit(2**32, pl.Int128)).otherwise(pl.lit(2**64, pl.Int128)),
        microseconds=microseconds,
        room=pl.when(pl.col("counter").is_in(_OCTETS)).then(
            pl.col("speed_bits_per_second") / 8 * (microseconds / 1e6 + _PLAUSIBLE_SECONDS) * _PLAUSIBLE_RATIO
        ),
    )
    step = _step(is_32)
    passed = pl.when(pl.col("step") == "normal").then("grown").when(pl.col("step").is_in(GOOD)).then("wrapped")
    judged = timed.with_columns(step=step).with_columns(delta=passed.cast(pl.Decimal(20, 0)))
    # Not an expression: that multiplies by the reciprocal where the divisor happens to be one value for all rows, so
    # the last bit would depend on which other rows are computed with this one (polars 2.1).
    rate = (judged["delta"].cast(pl.Float64) * 1e6) / judged["microseconds"]
    return judged.with_columns(rate_per_second=rate)


def _step(is_32: pl.Expr) -> pl.Expr:
    fits = {name: (pl.col(name).cast(pl.Float64) <= pl.col("room")) for name in ("grown", "wrapped")}
    # Where no link tells what can be: less than half the range, by an agent that is known to have run all the time.
    is_short = pl.col("has_uptime") & (pl.col("wrapped") < 2**31)
    has_wrapped = pl.when(is_32).then(fits["wrapped"].fill_null(is_short)).otherwise(fits["wrapped"].fill_null(False))
    has_changed = (pl.col("discontinuity") != pl.col("_told")).fill_null(False)
    return (
        pl.when(pl.col("before_at").is_null())
        .then(pl.lit("gap"))
        .when("has_rebooted")
        .then(pl.lit("reboot"))
        .when(has_changed)
        .then(pl.lit("discontinuity"))
        .when((pl.col("grown") >= 0) & ~fits["grown"].fill_null(True))
        .then(pl.lit("implausible"))
        .when(pl.col("grown") >= 0)
        .then(pl.lit("normal"))
        .when(~has_wrapped)
        .then(pl.lit("reset"))
        .when(is_32)
        .then(pl.lit("wrap32"))
        .otherwise(pl.lit("wrap64"))
    )
