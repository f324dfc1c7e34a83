"""Windows of event time: what ``window = {...}`` may say, and which rows make one window.

Every rule here is local: whether a row belongs to a window is decided by rows within a known reach of it, so the same
rows give the same windows in any order of arrival, and a late row changes nothing beyond its reach.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, ValidationInfo, field_validator, model_validator

from assets.table import UTC_TIME, Window
from resources.durations import Duration, spelled
from resources.strict_model import StrictModel

START, END = "window_start", "window_end"
GROUP, SERIES = "__group", "__series"
POSITION, SECONDS, HELD = "__position", "__seconds", "__held"
"""Derived columns: number of the row in the total order, seconds since the window's start, and microseconds until the
next row of the window (0 for the last)."""

_MOST_OVERLAPS = 1_440
_KEYS = {"tumbling": ("size",), "sliding": ("size", "slide"), "session": ("gap", "max")}
_MICROSECOND = timedelta(microseconds=1)


def _at_least_a_millisecond(value: timedelta) -> timedelta:
    if value < timedelta(milliseconds=1):
        raise ValueError(f"must be at least 1 ms, got {value.total_seconds():g} s")
    return value


_Span = Annotated[Duration, AfterValidator(_at_least_a_millisecond)]


def _told(span: timedelta | None) -> str:
    return "" if span is None else spelled(span)


class Windowing(StrictModel):
    """``window`` of a calculation. Tumbling and sliding windows are aligned to 1970-01-01 UTC.

    A session is a run of rows of one series, each at most ``gap`` after the one before. A run that is longer than
    ``max`` is cut at the multiples of ``max`` since 1970-01-01 UTC.
    """

    kind: Literal["tumbling", "sliding", "session"]
    size: _Span | None = None
    slide: _Span | None = None
    gap: _Span | None = None
    max: _Span | None = None

    @field_validator("size", "slide", "gap", "max", mode="before")
    @classmethod
    def _is_of_the_kind(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("kind")
        if kind in _KEYS and info.field_name not in _KEYS[kind]:
            raise ValueError(f"is not of a {kind} window, which has {' and '.join(_KEYS[kind])}")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> "Windowing":
        for name in _KEYS[self.kind]:
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing: a {self.kind} window has {' and '.join(_KEYS[self.kind])}")
        if self.kind == "sliding" and not self.slide_or_size < self.length:
            raise ValueError(f"slide must be less than the size of {_told(self.length)}, got {_told(self.slide)}")
        if self.kind == "sliding" and self.length > _MOST_OVERLAPS * self.slide_or_size:
            raise ValueError(
                f"slide must be at least a {_MOST_OVERLAPS}th of the size of {_told(self.length)}, "
                f"got {_told(self.slide)}"
            )
        if self.gap is not None and not self.gap < self.length:
            raise ValueError(f"gap must be less than the max of {_told(self.length)}, got {_told(self.gap)}")
        return self

    @property
    def length(self) -> timedelta:
        """The size, or the longest run of rows of a session."""
        found = self.max if self.kind == "session" else self.size
        assert found is not None
        return found

    @property
    def slide_or_size(self) -> timedelta:
        """From one window's start to the next one's."""
        return self.slide or self.length

    def reach(self, lateness: timedelta) -> Window:
        """What the engine has to know to keep these windows right."""
        return Window(size=self.length, slide=self.slide, gap=self.gap, lateness=lateness)

    def __str__(self) -> str:
        """As a user would say it."""
        if self.kind == "session":
            return f"session of rows at most {_told(self.gap)} apart, {_told(self.max)} long at the most"
        return f"window of {_told(self.size)}" + (f" every {_told(self.slide)}" if self.slide else "")


@dataclass(frozen=True)
class Grouped:
    """Rows with the number of their window (``__group``), and how a number is read.

    Attributes:
        rows: ``__group``, what was asked for, in the total order within each group.
        windows: ``__group, __series, window_start, window_end``.
    """

    rows: pl.DataFrame
    windows: pl.DataFrame


def group_rows(ordered: pl.DataFrame, time: str, windowing: Windowing, derived: frozenset[str]) -> Grouped:
    """Parts rows into their windows.

    Args:
        ordered: rows with ``__series`` (a number), ``time`` and others, in order of series and then total order.
        time: the column of event time.
        windowing: the windows.
        derived: which of the derived columns to add.
    """
    rows = ordered.with_row_index(POSITION) if POSITION in derived else ordered
    if HELD in derived:
        is_same = pl.col(SERIES) == pl.col(SERIES).shift(-1)
        rows = rows.with_columns(_next=pl.when(is_same).then(pl.col(time).shift(-1)))
    grouped = _sessions(rows, time, windowing) if windowing.kind == "session" else _aligned(rows, time, windowing)
    found = grouped.rows
    if SECONDS in derived:
        since = (pl.col(time) - pl.col(START)).dt.total_microseconds()
        found = found.with_columns((since / 1e6).alias(SECONDS))
    if HELD in derived:
        is_within = pl.col("_next") < pl.col(END)
        held = pl.when(is_within).then((pl.col("_next") - pl.col(time)).dt.total_microseconds()).otherwise(0)
        found = found.with_columns(held.alias(HELD))
    return Grouped(found, grouped.windows)


def _aligned(rows: pl.DataFrame, time: str, windowing: Windowing) -> Grouped:
    """Tumbling and sliding windows: a row of a sliding window stands once in each window that it belongs to.

    The copies stand window by window of the slide, so that each group keeps the total order.
    """
    every = f"{windowing.slide_or_size // _MICROSECOND}us"
    newest = rows.with_columns(pl.col(time).dt.truncate(every).alias(START))
    newest = newest.with_columns(pl.struct(SERIES, START).rle_id().alias("_cell"))
    cells = newest.select("_cell", SERIES, START).unique("_cell", keep="first", maintain_order=True)
    copies = -(-windowing.length // windowing.slide_or_size)
    starts = [cells.with_columns(pl.col(START) - back * windowing.slide_or_size) for back in range(copies)]
    numbers = pl.concat(starts).select(SERIES, START).unique().sort(SERIES, START).with_row_index(GROUP)
    parts = []
    for moved in starts:  # cells are few: rows are given their window's number and start by the number of their cell
        of_cell = moved.join(numbers, on=[SERIES, START], how="left", maintain_order="left")
        found = of_cell.select(GROUP, START, (pl.col(START) + windowing.length).alias(END))[newest["_cell"]]
        parts.append(newest.drop(START, "_cell").hstack(found))
    if windowing.length % windowing.slide_or_size:  # the oldest window ends within a cell
        parts[-1] = parts[-1].filter(pl.col(time) < pl.col(END))
    spread = pl.concat(parts)
    filled = numbers.filter(pl.col(GROUP).is_in(spread[GROUP].unique().implode()))
    end = (pl.col(START) + windowing.length).alias(END)
    return Grouped(spread, filled.select(GROUP, SERIES, START, end))


def _sessions(rows: pl.DataFrame, time: str, windowing: Windowing) -> Grouped:
    """Sessions; see ``Windowing``. The pieces of a cut run touch: one ends where the next one starts."""
    gap, longest = (span // _MICROSECOND for span in (windowing.gap or timedelta(0), windowing.length))
    at = pl.col(time).to_physical()
    is_new = (pl.col(SERIES) != pl.col(SERIES).shift(1)) | (at - at.shift(1) > gap)
    cell = (at // longest).alias("_cell")
    marked = rows.select(SERIES, at.alias("_at"), cell, is_new.fill_null(True).alias("_new"))
    marked = marked.with_columns(_run=pl.col("_new").cum_sum())
    runs = marked.group_by("_run", maintain_order=True).agg(
        _long=pl.col("_at").last() - pl.col("_at").first() > longest
    )
    marked = marked.with_columns(_cut=runs["_long"].gather((marked["_run"] - 1).cast(pl.UInt32)))
    is_cut = pl.col("_cut") & (pl.col("_cell") != pl.col("_cell").shift(1))
    marked = marked.with_columns(((pl.col("_new") | is_cut.fill_null(False)).cum_sum() - 1).alias(GROUP))
    pieces = marked.group_by(GROUP, maintain_order=True).agg(
        pl.col(SERIES).first(),
        pl.col("_cell", "_run", "_new").first(),
        _first=pl.col("_at").first(),
        _last=pl.col("_at").last(),
    )
    goes_on = (pl.col("_run") == pl.col("_run").shift(-1)).fill_null(False)
    start = pl.when("_new").then("_first").otherwise(pl.col("_cell") * longest)
    end = pl.when(goes_on).then((pl.col("_cell") + 1) * longest).otherwise(pl.col("_last") + gap)
    windows = pieces.select(GROUP, SERIES, start.cast(UTC_TIME).alias(START), end.cast(UTC_TIME).alias(END))
    of_row = windows.select(START, END)[marked[GROUP].cast(pl.UInt32)]
    return Grouped(rows.hstack([marked[GROUP]]).hstack(of_row), windows)
