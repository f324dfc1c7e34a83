"""Which rows of a computed table may have changed: spans of time of its series.

A frame of spans has the columns of the series, ``low, high`` (closed: a row of the table whose time lies in it is
computed again) and ``read_low, read_high`` (closed: the input that those rows are computed from).
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from assets.table import MINUTE, UTC_TIME, Table, Window
from assets.windowing import END, START

LOW, HIGH, READ_LOW, READ_HIGH = "low", "high", "read_low", "read_high"
_EDGES = (LOW, HIGH, READ_LOW, READ_HIGH)
_MICROSECOND = timedelta(microseconds=1)


def no_spans(table: Table) -> pl.DataFrame:
    """A frame of spans without rows."""
    return pl.DataFrame(schema={**{c: table.schema[c] for c in table.series}, **dict.fromkeys(_EDGES, UTC_TIME)})


def touched(table: Table, times: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """The spans that input rows touch.

    Args:
        table: the computed table.
        times: the series and times (column ``at``) of the input rows.
        stored: rows of the table near them, for sessions: ``window_start, window_end``.
    """
    window = table.window
    assert window is not None
    if window.gap is not None:
        return _sessions(table.series, window, times, stored)
    if window.has_episodes:
        minutes = times.select(*table.series, pl.col("at").dt.truncate("1m")).unique()
        last = MINUTE - _MICROSECOND + window.reach_ahead
        spans = minutes.with_columns(pl.col("at").alias(LOW), (pl.col("at") + last).alias(HIGH)).drop("at")
        return with_reach(window, _merged(table.series, spans, MINUTE))
    if window.bound is not None:
        low, high = pl.col("at") - window.bound, pl.col("at") + window.bound
    elif not window.size:
        low, high = pl.col("at") - window.reach_back, pl.col("at") + window.reach_ahead
    else:
        # One time a cell of the grid: the spans are at most one window wider than those of the rows themselves.
        times = times.select(*table.series, window_of(pl.col("at"), window)).unique()
        last = (window.slide or window.size) - _MICROSECOND
        low, high = first_window(pl.col("at"), window), window_of(pl.col("at") + last + window.reach_ahead, window)
    spans = times.select(*table.series, low.alias(LOW), high.alias(HIGH)).unique()
    return with_reach(window, _merged(table.series, spans, window.bound or window.slide or window.size))


def combined(table: Table, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All spans of several frames; those of a series that overlap are one."""
    given = pl.concat([no_spans(table), *parts])
    return _merged(table.series, given, timedelta(0)) if len(parts) > 1 else given


def every(window: Window) -> str:
    """From one window's start to the next one's, as polars spells it."""
    return f"{(window.slide or window.size) // _MICROSECOND}us"


def window_of(at: pl.Expr, window: Window) -> pl.Expr:
    """Start of the last window that holds a time."""
    return at.dt.truncate(every(window))


def first_window(at: pl.Expr, window: Window) -> pl.Expr:
    """Start of the first window that holds a time, or one ``reach_back`` before it."""
    last = window_of(at - window.reach_back - window.size, window)
    return last + (window.slide or window.size)


def with_reach(window: Window, spans: pl.DataFrame) -> pl.DataFrame:
    """Adds the input of each span; the last window of it may end one ``behind`` later."""
    read_low, read_high = pl.col(LOW) - window.before, pl.col(HIGH) + window.behind
    return spans.with_columns(read_low.alias(READ_LOW), read_high.alias(READ_HIGH))


def _merged(series: Sequence[str], spans: pl.DataFrame, within: timedelta) -> pl.DataFrame:
    """Joins the spans of a series that are at most ``within`` apart."""
    ordered = spans.sort(*series, LOW).with_columns(_reached=pl.col(HIGH).cum_max().over(series))
    is_same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift(1)) for c in series)
    is_next = is_same & (pl.col(LOW) <= pl.col("_reached").shift(1) + within)
    numbered = ordered.with_columns(_span=(~is_next.fill_null(False)).cum_sum())
    lowest, highest = ([n for n in names if n in spans.columns] for names in ((LOW, READ_LOW), (HIGH, READ_HIGH)))
    merged = numbered.group_by("_span", maintain_order=True).agg(
        *(pl.col(c).first() for c in series), pl.col(lowest).min(), pl.col(highest).max()
    )
    return merged.select(spans.columns)


def _sessions(series: Sequence[str], window: Window, times: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """New rows and stored sessions that touch are one run; of it, the sessions that touch a new row change.

    The rest of the run, up to the reach of the window, is read: it tells whether the run is longer than a session may
    be. The pieces of a run that was cut touch each other, so they are found in the same way.
    """
    gap, keys = window.gap, list(series)
    assert gap is not None
    # Rows of one cell of the gap's length are less than a gap apart: they are of one run.
    cell = pl.col("at").dt.truncate(f"{gap // _MICROSECOND}us")
    new = times.group_by(*keys, cell.alias("_cell")).agg(
        pl.col("at").min().alias(LOW), (pl.col("at").max() + gap).alias(HIGH), _new=pl.lit(True)
    )
    new = new.drop("_cell")
    known = stored.select(*keys, pl.col(START).alias(LOW), pl.col(END).alias(HIGH), _new=pl.lit(False))
    both = pl.concat([new, known]).sort(*keys, LOW, HIGH)
    reached = pl.col(HIGH).cum_max().shift(1).over(keys)
    runs = both.with_columns(_run=(pl.col(LOW) > reached).fill_null(True).cum_sum())
    is_dirty = pl.col("_new").any().over("_run")
    # A stored session touches a new row if it overlaps the one that starts last before its end, or next behind it.
    numbered = runs.filter(is_dirty).with_columns(
        _before=pl.when("_new").then(HIGH).cum_max().forward_fill().over("_run"),
        _behind=pl.when("_new").then(LOW).backward_fill().over("_run"),
    )
    overlaps = (pl.col("_before") >= pl.col(LOW)) | (pl.col("_behind") <= pl.col(HIGH))
    core = (
        numbered.filter(pl.col("_new") | overlaps.fill_null(False))
        .group_by("_run", maintain_order=True)
        .agg(*(pl.col(c).first() for c in keys), pl.col(LOW).min(), pl.col(HIGH).max())
    )
    extents = numbered.group_by("_run").agg(_from=pl.col(LOW).min(), _to=pl.col(HIGH).max())
    margin = window.size + 2 * gap
    return core.join(extents, on="_run", how="left", maintain_order="left").select(
        *keys,
        LOW,
        HIGH,
        pl.max_horizontal("_from", pl.col(LOW) - margin).alias(READ_LOW),
        pl.min_horizontal("_to", pl.col(HIGH) + margin).alias(READ_HIGH),
    )


def within(rows: pl.DataFrame, spans: pl.DataFrame, series: Sequence[str], time: str) -> pl.DataFrame:
    """The rows whose series has a span that holds their time, in no particular order."""
    if rows.is_empty() or spans.is_empty():
        return rows.clear()
    # Only what tells series and times is moved about: the rows may be wide.
    names, numbered = list(series), rows.select(*series, pl.col(time).alias("_at")).with_row_index("_row")
    keys = spans.select(names).unique().with_row_index("_series")
    if keys.height == spans.height:
        found = numbered.join(spans.select(*names, LOW, HIGH), on=names, how="inner", nulls_equal=True)
    else:
        left = numbered.join(keys, on=names, how="inner", nulls_equal=True).sort("_at")
        right = spans.join(keys, on=names, how="inner", nulls_equal=True).select("_series", LOW, HIGH).sort(LOW)
        found = left.join_asof(right, left_on="_at", right_on=LOW, by="_series", check_sortedness=False, coalesce=False)
    held = found.filter(pl.col("_at").is_between(LOW, HIGH))["_row"]
    return rows if len(held) == rows.height else rows[held]
