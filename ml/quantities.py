"""What is measured of a window, and how it looks over the windows before it."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

GROUP = ("site_id", "device_id")
"""A device: its sensors are judged beside one another."""

SERIES = (*GROUP, "sensor_id", "unit")
START = "window_start"
END = "window_end"
KEY = (*SERIES, START)

MEASURED = ("level", "spread", "slope", "change", "range", "tail", "readings", "silence", "stuck")
"""What is measured of a window and of those directly before it."""

SMOOTHED = ("sustained", "trend", "residual")
"""What is computed from the levels of up to ``SPAN`` windows."""

FEATURES = (*MEASURED, *SMOOTHED)
SPAN = 16
REACH = 2 * SPAN
"""A window's features depend on windows of its device that start at most this many sizes before it."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ordered:
    """Windows in the order of ``KEY``, with what tells series, devices and times apart.

    Attributes:
        rows: the windows.
        series: number of each row's series, rising.
        device: number of each row's device, rising.
        start: start of each window in microseconds.
        size: size of a window in microseconds.
        measured: a column for each of ``MEASURED`` in the units of the sensor; NaN where it is missing.
    """

    rows: pl.DataFrame
    series: Integers
    device: Integers
    start: Integers
    size: int
    measured: dict[str, Floats]

    def lagged(self, values: npt.NDArray[np.bool_] | Floats, by: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Each row's value of ``by`` rows before, and whether that row is of its series and near: 0 where it is not."""
        before, is_near = np.zeros(len(values)), np.zeros(len(values), bool)
        if by < len(values):
            same = self.series[by:] == self.series[:-by]
            is_near[by:] = same & (self.start[by:] - self.start[:-by] <= 2 * by * self.size)
            before[by:] = np.where(is_near[by:], values[:-by], 0.0)
        return before, is_near

    def sums(self, values: Floats, span: int) -> Floats:
        """Each row's sum of its own and the ``span - 1`` values before it, as far as they are near; span is 2^n.

        The order of the additions is the same however many rows are at hand, so the last bit is, too.
        """
        total, step = values, 1
        while step < span:
            total = total + self.lagged(total, step)[0]
            step *= 2
        return total


def _numbers(rows: pl.DataFrame, names: tuple[str, ...]) -> Integers:
    changes = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in names)
    return np.cumsum(rows.select(changes.fill_null(True)).to_series().to_numpy()).astype(np.int64)


def ordered(windows: pl.DataFrame) -> Ordered:
    """Sorts windows (columns of ``gold.sensor_windows_1m``) and measures them."""
    return measured(windows.sort(KEY))


def by_devices(windows: pl.DataFrame, most: int) -> list[pl.DataFrame]:
    """Windows in the order of ``KEY``, cut between devices into parts of about ``most`` rows."""
    rows = windows.sort(KEY)
    firsts = np.flatnonzero(np.diff(_numbers(rows, GROUP), prepend=0))
    cuts = np.unique(firsts // most, return_index=True)[1]
    edges = [*firsts[cuts].tolist(), rows.height]
    return [rows.slice(low, high - low) for low, high in pairwise(edges)] or [rows]


def measured(rows: pl.DataFrame) -> Ordered:
    """Measures windows that are in the order of ``KEY``."""
    start = rows[START].to_physical().to_numpy()
    size = int((rows[END][0] - rows[START][0]).total_seconds() * 1_000_000) if rows.height else 1
    bare = Ordered(rows, _numbers(rows, SERIES), _numbers(rows, GROUP), start, size, {})
    return Ordered(rows, bare.series, bare.device, start, size, _measured(bare))


def _column(rows: pl.DataFrame, expression: pl.Expr) -> Floats:
    value = rows.select(expression.cast(pl.Float64)).to_series().to_numpy().astype(np.float64)
    return np.where(np.isfinite(value), value, np.nan)


def _measured(windows: Ordered) -> dict[str, Floats]:
    rows, col = windows.rows, pl.col
    level = _column(rows, col("mean"))
    before, is_adjacent = windows.lagged(level, 1)
    since = np.zeros(rows.height, np.int64)
    since[1:] = windows.start[1:] - windows.start[:-1]
    is_first = np.ones(rows.height, bool)
    is_first[1:] = windows.series[1:] != windows.series[:-1]
    missed = np.where(is_first, SPAN, np.clip(since / windows.size - 1, 0, SPAN))
    return {
        "level": level,
        "spread": _column(rows, col("stddev")),
        "slope": _column(rows, col("last") - col("first")),
        "change": np.where(is_adjacent & (since == windows.size), level - before, np.nan),
        "range": _column(rows, col("maximum") - col("minimum")),
        "tail": _column(rows, col("p99") - col("p50")),
        "readings": _column(rows, col("readings").cast(pl.Float64).log1p()),
        "silence": missed,
        "stuck": _unmoved(windows, is_first | (since != windows.size)),
    }


def _unmoved(windows: Ordered, is_apart: npt.NDArray[np.bool_]) -> Floats:
    """How many windows in a row, up to this one, brought no other value than the one before; ``REACH`` at the most.

    Where a window has no minimum and maximum, its mean is what may stay the same.
    """
    low, high, last_value = (_column(windows.rows, pl.coalesce(n, "mean")) for n in ("minimum", "maximum", "last"))
    before = np.full(len(low), np.nan)
    before[1:] = last_value[:-1]
    moved = np.flatnonzero(is_apart | (low != high) | (low != before))
    place = np.arange(len(low))
    last = np.full(len(low), -REACH)
    last[moved] = moved
    return np.minimum(place - np.maximum.accumulate(last), REACH).astype(np.float64)
