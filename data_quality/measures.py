"""What other tables say about a table: how much came, who fell silent, what was quarantined, what has no counterpart.

A measure is a number for each of some subjects (an hour, a sender, a value) with the bounds that are expected of it.
Its rows become one expectation of the table's suite. Frames in, frames out: ``pipelines/measures.py`` reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl

from data_quality.declared import expectation_types

SUBJECT = ("subject", "value", "low", "high")
EXCESS = "excess"
LEAST_DAYS = 3
"""Earlier days on which the same hour brought rows: of fewer nothing is expected."""
VOLUME = (0.5, 2.0)
"""Least and most of the median of those days that an hour may bring."""
QUARANTINED = 0.05
"""Most of what a table was given that may be in quarantine."""
SILENT_SINCE = timedelta(days=1)
"""A sender or series that has been silent for longer is not expected any more."""

_ROWS: dict[str, Any] = {"subject": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}


@dataclass(frozen=True)
class Measure:
    """Numbers about a table: ``rows`` has ``subject, value, low, high``; a bound that is null is none."""

    description: str
    rows: pl.DataFrame
    severity: Literal["critical", "warning"] = "warning"


def _measure(description: str, rows: Sequence[tuple[str, float, float | None, float | None]]) -> Measure:
    return Measure(description, pl.DataFrame(rows, _ROWS, orient="row"))


def volume(hours: pl.DataFrame, hour: datetime) -> Measure:
    """An hour against the same hour of earlier days.

    Args:
        hours: ``hour`` and ``rows``, of ``hour`` and of earlier days; days without rows do not count.
        hour: start of the hour that is looked at.
    """
    low, high = VOLUME
    text = f"The last full hour brought {low:g} to {high:g} times the rows of the same hour of earlier days"
    earlier = hours.filter(pl.col("hour") != hour, pl.col("rows") > 0)["rows"]
    if earlier.len() < LEAST_DAYS:
        return _measure(text, [])
    usual = float(str(earlier.median()))
    found = int(hours.filter(pl.col("hour") == hour)["rows"].sum())
    return _measure(text, [(f"{hour:%Y-%m-%d %H}:00", found, low * usual, high * usual)])


def quarantined(written: int, refused: int) -> Measure:
    """The share of what came lately that is in quarantine."""
    text = f"At most {QUARANTINED:.0%} of what came is in quarantine"
    came = written + refused
    return _measure(text, [(f"{refused} of {came}", refused / came, None, QUARANTINED)] if came else [])


def silent(senders: pl.DataFrame, now: datetime, within: timedelta) -> Measure:
    """Every sender of the last day has sent lately.

    Args:
        senders: ``sender`` and when it was last heard, ``received_at``.
        now: the present.
        within: what lately is.
    """
    heard = senders.filter(pl.col("received_at") > now - SILENT_SINCE)
    seconds = (pl.lit(now) - pl.col("received_at")).dt.total_microseconds() / 1e6
    text = f"Every sender of the last {SILENT_SINCE} has been heard within {within}"
    rows = heard.select("sender", value=seconds, low=None, high=within.total_seconds()).rows()
    return _measure(f"{text} (seconds since)", rows)


def missing_series(before: pl.DataFrame, lately: pl.DataFrame, within: timedelta) -> Measure:
    """Every series that had rows before has rows lately.

    Args:
        before: the distinct series of the rows that were written in the ``within`` before the last.
        lately: those of the last.
        within: what lately is.
    """
    found = before.join(lately.with_columns(_rows=pl.lit(1)), on=before.columns, how="left", nulls_equal=True)
    rows = found.select(_told(before.columns), pl.col("_rows").fill_null(0).cast(pl.Float64), low=1.0, high=None)
    return _measure(f"Every series that had rows in the {within} before has rows in the last {within}", rows.rows())


def without_reference(identifier: str, columns: Sequence[str], rows: pl.DataFrame, known: pl.DataFrame) -> Measure:
    """Rows whose values are not in a reference table: none.

    Args:
        identifier: the reference table.
        columns: the columns that name a row of it, here and there.
        rows: the rows that are looked at; those with a null name nothing.
        known: the reference table's rows.
    """
    named = rows.select(columns).drop_nulls()
    missing = named.join(known.select(columns), on=list(columns), how="anti").group_by(columns).len().sort(columns)
    found = missing.select(_told(columns), pl.col("len").cast(pl.Float64), low=None, high=0.0)
    return _measure(f"Every {', '.join(columns)} is in {identifier} (rows)", found.rows())


def reconciled(description: str, rows: pl.DataFrame) -> Measure:
    """Rows that must be there are there, to the last one.

    Args:
        description: what is compared.
        rows: one row each that must be there: ``source`` (who sent it), its ``hour``, and whether it ``is_there``.
    """
    text = pl.format("{} {}", pl.col("source").fill_null("?"), pl.col("hour").dt.strftime("%Y-%m-%d %H:00"))
    counts = rows.group_by("source", "hour").agg(value=pl.col("is_there").sum(), low=pl.len()).sort("hour", "source")
    found = counts.select(text, pl.col("value", "low").cast(pl.Float64), high=pl.col("low").cast(pl.Float64))
    return Measure(f"{description}, by source and hour", pl.DataFrame(found.rows(), _ROWS, orient="row"), "critical")


def _told(columns: Sequence[str]) -> pl.Expr:
    parts = [pl.format(f"{name}={{}}", pl.col(name).cast(pl.String).fill_null("null")) for name in columns]
    return pl.concat_str(parts, separator=" ")


def measured(measures: Sequence[Measure]) -> pl.DataFrame:
    """The rows of all measures with the ``measure`` they are of, and by how much they are out of bounds."""
    parts = [m.rows.with_columns(measure=pl.lit(m.description)) for m in measures]
    rows = pl.concat([pl.DataFrame(schema={**_ROWS, "measure": pl.String}), *parts])
    over, under = pl.col("value") - pl.col("high"), pl.col("low") - pl.col("value")
    return rows.with_columns(pl.max_horizontal(over, under, pl.lit(0.0)).alias(EXCESS))


def measure_expectations(measures: Sequence[Measure]) -> list[Any]:
    """One expectation a measure, of the rows of ``measured``."""
    from great_expectations.expectations.row_conditions import Column

    return [
        expectation_types().ExpectColumnValuesToBeBetween(
            column=EXCESS,
            max_value=0,
            row_condition=Column("measure") == measure.description,
            severity=measure.severity,
            description=measure.description,
        )
        for measure in measures
    ]
