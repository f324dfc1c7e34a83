"""gold.interface_rates_1m."""

from datetime import timedelta

import polars as pl

from assets.silver.snmp_samples import snmp_samples
from assets.table import MINUTE, UTC_TIME, Window, column, table
from resources.stored_table import Partition

GAP = timedelta(minutes=5)
_WRAP = 2**64
# A poll's jitter makes a full link look a little faster than it is.
_PLAUSIBLE = 1.1
_SATURATED = 2**32 - 1
_UPTIME_TICKS = 2**32
_UPTIME_TOLERANCE_TICKS = 500  # the clocks of agent and collector differ, and answers take time
_UPTIME_TOLERANCE = timedelta(seconds=60)
_INTERFACE = ["device_id", "if_index"]
_COUNTERS = {"ifHCInOctets": "in", "ifHCOutOctets": "out"}
_SAMPLES = "silver.snmp_samples"
_STEP = (f"{_SAMPLES}.counter_value", f"{_SAMPLES}.numeric_value", f"{_SAMPLES}.observed_at")


def _of_interfaces(samples: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Samples of IF-MIB columns with their ``if_index``, in order of time."""
    return (
        samples.filter(pl.col("mib_module") == "IF-MIB", pl.col("object_name").is_in(names))
        .with_columns(if_index=pl.col("instance").cast(pl.Int64, strict=False))
        .filter(pl.col("if_index").is_not_null())
        .sort("observed_at", *_INTERFACE, "object_name")
    )


def _steps(samples: pl.DataFrame) -> pl.DataFrame:
    """One row a counter sample, with the sample before it at most ``GAP`` ago, if there is one."""
    counter = [*_INTERFACE, "direction"]
    before = pl.col("observed_at", "octets").shift(1).over(counter)
    is_near = pl.col("observed_at") - pl.col("before") <= GAP
    return (
        _of_interfaces(samples, list(_COUNTERS))
        .filter(pl.col("counter_value").is_not_null())
        .select(
            *_INTERFACE,
            "observed_at",
            direction=pl.col("object_name").replace_strict(_COUNTERS, return_dtype=pl.String),
            octets=pl.col("counter_value").cast(pl.Int128),
            window_start=pl.col("observed_at").dt.truncate("1m"),
        )
        .with_columns(before.name.prefix("_"))
        .rename({"_observed_at": "before"})
        .with_columns(
            before=pl.when(is_near).then("before"),
            grown=pl.when(is_near).then(pl.col("octets") - pl.col("_octets")),
            microseconds=pl.when(is_near).then((pl.col("observed_at") - pl.col("before")).dt.total_microseconds()),
        )
    )


def _latest(windows: pl.DataFrame, samples: pl.DataFrame, name: str, value: pl.Expr) -> pl.DataFrame:
    """Adds the last ``value`` of an object before each window's end, at most ``GAP`` before its start."""
    found = _of_interfaces(samples, [name]).select(*_INTERFACE, "observed_at", value.alias(name)).drop_nulls()
    return windows.join_asof(
        found,
        left_on="window_end",
        right_on="observed_at",
        by=_INTERFACE,
        tolerance=GAP + MINUTE,
        allow_exact_matches=False,
        check_sortedness=False,
        coalesce=True,
    ).drop("observed_at", strict=False)


def _described(samples: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """One row a window of an interface: its name and speed."""
    number, text = pl.col("numeric_value"), pl.col("metric_value")
    windows = (
        steps.select(*_INTERFACE, "window_start", window_end=pl.col("window_start") + MINUTE)
        .unique()
        .sort("window_end", *_INTERFACE)
    )
    windows = _latest(windows, samples, "ifHighSpeed", pl.when(number > 0).then(number * 1e6))
    windows = _latest(windows, samples, "ifSpeed", pl.when((number > 0) & (number < _SATURATED)).then(number))
    for name in ("ifName", "ifDescr"):
        windows = _latest(windows, samples, name, pl.when(text != "").then(text))
    return windows.select(
        *_INTERFACE,
        "window_start",
        "window_end",
        if_name=pl.coalesce("ifName", "ifDescr"),
        speed_bits_per_second=pl.coalesce("ifHighSpeed", "ifSpeed"),
    )


def _uptimes(samples: pl.DataFrame) -> pl.DataFrame:
    """Polled sysUpTime: ``device_id, told_at, started_at`` and, behind its roll-over, ``rolled_since``.

    sysUpTime starts again after 2^32 ticks of 0.01 s, 497 days. Where it went back just as it had to, that was no
    restart: ``rolled_since`` is the time of the sample before, also for the later samples of that same uptime.
    """
    ticks, elapsed = pl.col("ticks"), (pl.col("told_at") - pl.col("told_before")).dt.total_microseconds() // 10_000
    expected = pl.col("ticks_before") + elapsed - _UPTIME_TICKS
    has_rolled = (expected - ticks).abs() <= _UPTIME_TOLERANCE_TICKS + elapsed // 100
    is_of_rolled = (pl.col("started_at") - pl.col("rolled_start")).abs() <= _UPTIME_TOLERANCE
    return (
        samples.filter(pl.col("object_name") == "sysUpTime", pl.col("numeric_value").is_not_null())
        .select(
            "device_id",
            told_at="observed_at",
            ticks=pl.col("numeric_value").cast(pl.Int64),
            started_at=pl.col("observed_at") - pl.duration(milliseconds=pl.col("numeric_value").cast(pl.Int64) * 10),
        )
        .sort("told_at", "device_id")
        .with_columns(
            told_before=pl.col("told_at").shift(1).over("device_id"),
            ticks_before=ticks.shift(1).over("device_id"),
        )
        .with_columns(
            rolled_since=pl.when(has_rolled).then("told_before"),
            rolled_start=pl.when(has_rolled).then("started_at"),
        )
        .with_columns(pl.col("rolled_since", "rolled_start").forward_fill().over("device_id"))
        .select("device_id", "told_at", "started_at", rolled_since=pl.when(is_of_rolled).then("rolled_since"))
    )


def _with_restarts(samples: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Adds whether the agent started between a step's samples, as the sysUpTime read next to the later one tells."""
    uptimes = _uptimes(samples)
    joined = steps.sort("observed_at")
    for strategy, suffix in (("backward", "_before"), ("forward", "_after")):
        joined = joined.join_asof(
            uptimes.rename({name: f"{name}{suffix}" for name in uptimes.columns if name != "device_id"}).rename(
                {f"told_at{suffix}": f"told{suffix}", f"started_at{suffix}": f"started{suffix}"}
            ),
            left_on="observed_at",
            right_on=f"told{suffix}",
            by="device_id",
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=GAP,
            check_sortedness=False,
            coalesce=False,
        )
    # A sysUpTime of a later window, or a roll-over from before the reach, is left out: whether it is at hand must not
    # change the result.
    is_within = pl.col("told_after") < pl.col("window_start") + MINUTE
    has_rolled = (pl.col(f"rolled_since{x}") >= pl.col("window_start") - GAP for x in ("_after", "_before"))
    rolled_after, rolled_before = (rolled.fill_null(False) for rolled in has_rolled)
    after = pl.col("started_after").is_between("before", "observed_at", closed="right") & is_within & ~rolled_after
    before = (pl.col("started_before") > pl.col("before")) & ~rolled_before
    return joined.with_columns(has_restarted=before.fill_null(False) | after.fill_null(False))


def _with_discontinuities(samples: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Adds whether ifCounterDiscontinuityTime changed over a step, as read with or next behind its later sample."""
    told = (
        _of_interfaces(samples, ["ifCounterDiscontinuityTime"])
        .filter(pl.col("numeric_value").is_not_null())
        .select(*_INTERFACE, discontinuity_at="observed_at", ticks="numeric_value")
        .with_columns(pl.col("discontinuity_at", "ticks").shift(1).over(_INTERFACE).name.suffix("_before"))
        .filter(pl.col("ticks") != pl.col("ticks_before"))
    )
    joined = steps.sort("observed_at").join_asof(
        told.select(*_INTERFACE, "discontinuity_at", "discontinuity_at_before"),
        left_on="observed_at",
        right_on="discontinuity_at",
        by=_INTERFACE,
        strategy="forward",
        tolerance=GAP,
        check_sortedness=False,
        coalesce=False,
    )
    earliest, end = pl.col("window_start") - GAP, pl.col("window_start") + MINUTE
    is_within = (pl.col("discontinuity_at") < end) & (pl.col("discontinuity_at_before") >= earliest)
    is_of_step = pl.col("discontinuity_at_before") < pl.col("observed_at")
    return joined.with_columns(has_restarted=pl.col("has_restarted") | (is_of_step & is_within).fill_null(False))


def _judged(steps: pl.DataFrame) -> pl.DataFrame:
    """Adds ``step`` (normal, wrap, reset or gap) and the octets that passed; steps have their window's speed."""
    seconds = pl.col("microseconds") / 1e6
    wrapped = pl.col("grown") + pl.lit(_WRAP, pl.Int128)
    is_plausible = wrapped.cast(pl.Float64) * 8 <= pl.col("speed_bits_per_second") * seconds * _PLAUSIBLE
    step = (
        pl.when(pl.col("before").is_null())
        .then(pl.lit("gap"))
        .when("has_restarted")
        .then(pl.lit("reset"))
        .when(pl.col("grown") >= 0)
        .then(pl.lit("normal"))
        .when(is_plausible.fill_null(False))
        .then(pl.lit("wrap"))
        .otherwise(pl.lit("reset"))
    )
    return steps.with_columns(step=step).with_columns(
        passed=pl.when(pl.col("step") == "normal").then("grown").when(pl.col("step") == "wrap").then(wrapped),
        microseconds=pl.when(pl.col("step").is_in(["normal", "wrap"])).then("microseconds"),
    )


def _passed(direction: str) -> tuple[pl.Expr, pl.Expr]:
    """Bits (in millionths) and microseconds of good steps: sums of integers, so that no order of rows changes them."""
    good = (pl.col("direction") == direction) & pl.col("passed").is_not_null()
    octets, microseconds = (pl.col(name).filter(good).sum() for name in ("passed", "microseconds"))
    return (
        (octets.cast(pl.Float64) * 8e6).alias(f"{direction}_bits"),
        pl.when(microseconds > 0).then(microseconds).alias(f"{direction}_microseconds"),
    )


def _divided(frame: pl.DataFrame, name: str, dividend: str, divisor: str) -> pl.DataFrame:
    # Not an expression: that multiplies by the reciprocal where the divisor happens to be one value for all rows, so
    # the last bit would depend on which other rows are computed with this one (polars 2.1).
    return frame.with_columns((frame[dividend] / frame[divisor]).alias(name))


def _count(step: str) -> pl.Expr:
    return (pl.col("step") == step).sum().cast(pl.Int32).alias(f"steps_{step}")


_COLUMNS = (
    column("device_id", pl.String, "Agent as host:port", required=True, lineage=f"{_SAMPLES}.device_id"),
    column("if_index", pl.Int64, "ifIndex of the interface", required=True, lineage=f"{_SAMPLES}.instance"),
    column(
        "if_name",
        pl.String,
        "Last ifName, else ifDescr, polled in the window or the 5 minutes before it",
        lineage=f"{_SAMPLES}.metric_value",
    ),
    column("window_start", UTC_TIME, "Start of the minute", required=True, lineage=f"{_SAMPLES}.observed_at"),
    column("window_end", UTC_TIME, "End of the minute, exclusive", required=True, lineage=f"{_SAMPLES}.observed_at"),
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
            lineage=_STEP,
        )
        for direction in ("in", "out")
    ),
    column(
        "speed_bits_per_second",
        pl.Float64,
        "Last ifHighSpeed * 10^6, else ifSpeed that is not saturated, polled in the window or the 5 minutes before it",
        minimum=0,
        lineage=f"{_SAMPLES}.numeric_value",
    ),
    *(
        column(f"steps_{step}", pl.Int32, f"Counter samples, both ways, {meaning}", required=True, lineage=_STEP)
        for step, meaning in (
            ("normal", "that continue the sample before"),
            ("wrap", "behind a passed 2^64 that the link's speed makes plausible"),
            ("reset", "behind a restart: the counter or sysUpTime went back, or ifCounterDiscontinuityTime changed"),
            ("gap", "with no sample in the 5 minutes before; the first one too"),
        )
    ),
)


@table(
    layer="gold",
    columns=_COLUMNS,
    inputs=(snmp_samples,),
    key=("device_id", "if_index", "window_start"),
    series=("device_id",),
    time="window_start",
    window=Window(size=MINUTE, reach_ahead=GAP, lateness=timedelta(seconds=30)),
    partitions=(Partition("window_start", "hour"),),
    kinds=("iceberg", "gold", "polars", "snmp"),
    freshness=timedelta(minutes=10),
)
def interface_rates_1m(samples: pl.DataFrame) -> pl.DataFrame:
    """One row an interface and minute in which its octet counters were polled: rates, utilisation, kinds of step.

    Source: ifHCInOctets and ifHCOutOctets (RFC 2863) of `silver.snmp_samples`. Two samples of a counter in a row, at
    most 5 minutes apart, are a step; it belongs to the minute of its later sample. A step over a restart of the counter
    (also one that ifCounterDiscontinuityTime tells) or of the agent (sysUpTime, but not its roll-over after 497 days)
    has no rate. Minutes are emitted as they fill and are final 30 s after the device's watermark passed their end.
    """
    steps = _steps(samples)
    windows = _described(samples, steps)
    speeds = windows.select(*_INTERFACE, "window_start", "speed_bits_per_second")
    broken = _with_discontinuities(samples, _with_restarts(samples, steps))
    judged = _judged(broken.join(speeds, on=[*_INTERFACE, "window_start"], how="left"))
    rates = judged.group_by(*_INTERFACE, "window_start").agg(
        *_passed("in"), *_passed("out"), *map(_count, ("normal", "wrap", "reset", "gap"))
    )
    rows = windows.join(rates, on=[*_INTERFACE, "window_start"], how="left")
    for way in ("in", "out"):
        rows = _divided(rows, f"{way}_bits_per_second", f"{way}_bits", f"{way}_microseconds")
        rows = _divided(rows, f"{way}_utilisation_ratio", f"{way}_bits_per_second", "speed_bits_per_second")
    return rows.select(c.name for c in _COLUMNS).sort("window_start", *_INTERFACE)
