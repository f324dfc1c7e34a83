"""When agents started, as their sysUpTime tells (RFC 3418)."""

from datetime import timedelta

import polars as pl

GAP = timedelta(minutes=5)
"""What was read longer ago tells nothing of now."""

POLL = timedelta(minutes=1)
"""A poll is taken to last no longer: what it reads late still belongs to what it read first."""

_ROLL_OVER = timedelta(milliseconds=10) * 2**32
_TOLERANCE = timedelta(seconds=5)  # the clocks of agent and collector differ, and answers take time


def uptimes(samples: pl.DataFrame) -> pl.DataFrame:
    """Polled sysUpTime in order of time: ``device_id, told_at, zero_at, has_rolled``.

    ``zero_at`` is when it stood at 0. That was no start of the agent but the roll-over after 2^32 ticks of 0.01 s, 497
    days, if the last sysUpTime before it had come so far.
    """
    told = (
        samples.filter(pl.col("object_name") == "sysUpTime", pl.col("numeric_value").is_not_null())
        .select(
            "device_id",
            told_at="observed_at",
            zero_at=pl.col("observed_at") - pl.duration(milliseconds=pl.col("numeric_value").cast(pl.Int64) * 10),
        )
        .sort("told_at", "device_id", "zero_at")
    )
    before = told.select("device_id", told_before="told_at", full_at=pl.col("zero_at") + _ROLL_OVER)
    joined = told.sort("zero_at").join_asof(
        before,
        left_on="zero_at",
        right_on="told_before",
        by="device_id",
        tolerance=GAP,
        check_sortedness=False,
        coalesce=False,
    )
    off, waited = pl.col("zero_at") - pl.col("full_at"), pl.col("zero_at") - pl.col("told_before")
    has_rolled = off.abs() <= _TOLERANCE + waited / 100
    return joined.select("device_id", "told_at", "zero_at", has_rolled=has_rolled.fill_null(False)).sort("told_at")


def with_uptimes(rows: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Adds the last sysUpTime told at or before ``observed_at`` and the next one told behind it.

    Columns ``zero_at, has_rolled`` and ``zero_at_behind, has_rolled_behind``; null where there is none near enough.
    """
    found = rows.sort("observed_at")
    behind = told.rename({name: f"{name}_behind" for name in told.columns if name != "device_id"})
    for right, on, strategy, tolerance in (
        (told, "told_at", "backward", GAP),
        (behind, "told_at_behind", "forward", POLL),
    ):
        found = found.join_asof(
            right,
            left_on="observed_at",
            right_on=on,
            by="device_id",
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=tolerance,
            check_sortedness=False,
            coalesce=False,
        )
    return found
