"""Which rows are wanted: conditions that prune files by their bounds and filter rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import polars as pl

BATCH_ID = "batch_id"
FAR_PAST, FAR_FUTURE = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""Ends of ranges that have none."""


@dataclass(frozen=True)
class Ranges:
    """Rows whose ``column`` lies in one of the half-open ranges [low, high)."""

    column: str
    ranges: Sequence[tuple[Any, Any]]

    def may_hold(self, lowest: Any, highest: Any) -> bool:
        """Whether a file whose values lie in [lowest, highest] may have such rows."""
        return any(low <= highest and lowest < high for low, high in self.ranges)

    def polars(self) -> pl.Expr:
        """For filtering rows."""
        column = pl.col(self.column)
        return pl.any_horizontal(*((column >= low) & (column < high) for low, high in self.ranges))


@dataclass(frozen=True)
class Among:
    """Rows whose ``column`` is one of the values."""

    column: str
    values: Sequence[Any]

    def may_hold(self, lowest: Any, highest: Any) -> bool:
        """Whether a file whose values lie in [lowest, highest] may have such rows."""
        return any(lowest <= value <= highest for value in self.values)

    def polars(self) -> pl.Expr:
        """For filtering rows."""
        return pl.col(self.column).is_in(list(self.values))


Where = Ranges | Among


def changes(after: int, until: int) -> Ranges:
    """The change feed: rows that the commits in (after, until] wrote."""
    return Ranges(BATCH_ID, [(after + 1, until + 1)])


def coalesce(ranges: Iterable[tuple[Any, Any]], most: int = 24) -> list[tuple[Any, Any]]:
    """Joins ranges that touch, then the closest ones until ``most`` are left: a superset that is cheap to test."""
    joined: list[tuple[Any, Any]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    if len(joined) <= most:
        return joined
    gaps = sorted(range(1, len(joined)), key=lambda i: joined[i][0] - joined[i - 1][1], reverse=True)
    cuts = [0, *sorted(gaps[: most - 1]), len(joined)]
    return [(joined[a][0], joined[b - 1][1]) for a, b in pairwise(cuts)]


def without(ranges: Iterable[tuple[Any, Any]], taken: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """What of the ranges none of ``taken`` holds."""
    left = sorted(ranges)
    for low, high in taken:
        cut = [part for a, b in left for part in ((a, min(b, low)), (max(a, high), b))]
        left = [(a, b) for a, b in cut if a < b]
    return left
