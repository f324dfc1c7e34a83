"""Every aggregate beside its definition in plain Python: nulls, one row, rows of one time, any order of arrival."""

from datetime import timedelta
from itertools import pairwise
from math import inf, isclose, nan
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.assets.test_calculation import _START, _built, _computed, _rows, _value

Timed = tuple[float, float | None]
"""Seconds after the window's start, and the value."""
BOUNDS = [-10.0, 0.0, 10.0]
EXPRESSIONS = {
    "rows": "count()",
    "known": "count(measurement)",
    "different": "count(distinct measurement)",
    "total": "sum(measurement)",
    "mean": "mean(measurement)",
    "lowest": "min(measurement)",
    "highest": "max(measurement)",
    "deviation": "stddev(measurement)",
    "p30": "quantile(measurement, 0.3)",
    "first": "first(measurement)",
    "last": "last(measurement)",
    "delta": "delta(measurement)",
    "rate": "rate(measurement)",
    "slope": "slope(measurement)",
    "weighted": "time_weighted_mean(measurement)",
    "share": "share_of_time(measurement > 0)",
    "counts": f"histogram(measurement, {BOUNDS})",
}
TABLE = _built(aggregate=EXPRESSIONS)


def quantile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low, high = ordered[int(place)], ordered[-int(-place // 1)]
    return low + (high - low) * (place % 1)


def slope(known: list[tuple[float, float]]) -> float | None:
    if len({at for at, _ in known}) < 2:
        return None
    mean_at, mean = fmean(at for at, _ in known), fmean(x for _, x in known)
    return sum((at - mean_at) * (x - mean) for at, x in known) / sum((at - mean_at) ** 2 for at, _ in known)


def weighted(rows: list[Timed], values: list[float | None]) -> float | None:
    """Each value holds until the next row; where no time passes, each counts the same."""
    held = [(v, following[0] - row[0]) for v, (row, following) in zip(values, pairwise(rows), strict=False)]
    lasting = [(v, span) for v, span in held if v is not None and span]
    if lasting:
        return sum(v * span for v, span in lasting) / sum(span for _, span in lasting)
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def counts(known: list[float]) -> list[int] | None:
    edges = [-inf, *BOUNDS, inf]
    return [sum(low < x <= high for x in known) for low, high in pairwise(edges)] if known else None


def expected(rows: list[Timed]) -> dict[str, Any]:
    """``rows`` in order of time."""
    known = [(at, x) for at, x in rows if x is not None]
    values = [x for _, x in known]
    span = known[-1][0] - known[0][0] if known else 0
    delta = known[-1][1] - known[0][1] if known else None
    return {
        "rows": len(rows),
        "known": len(known),
        "different": len({*values}),
        "total": sum(values) if values else None,
        "mean": fmean(values) if values else None,
        "lowest": min(values, default=None),
        "highest": max(values, default=None),
        "deviation": stdev(values) if len(values) > 1 else None,
        "p30": quantile(sorted(values), 0.3),
        "first": rows[0][1],
        "last": rows[-1][1],
        "delta": delta,
        "rate": delta / span if delta is not None and span else None,
        "slope": slope(known),
        "weighted": weighted(rows, [x for _, x in rows]),
        "share": weighted(rows, [None if x is None else float(x > 0) for _, x in rows]),
        "counts": counts(values),
    }


def is_same(found: Any, right: Any) -> bool:
    if found is None or right is None or isinstance(right, list):
        return bool(found == right)
    return isclose(found, right, rel_tol=1e-9, abs_tol=1e-7)


values_of = st.one_of(st.none(), st.integers(-20, 20).map(float), st.floats(-1000, 1000, width=32))


@given(st.lists(st.tuples(st.integers(0, 299), values_of), min_size=1, max_size=20), st.randoms(use_true_random=False))
@example([(5, 3.0)], None)
@example([(5, None)], None)
@example([(5, 3.0), (5, 7.0)], None)
@example([(5, None), (6, 7.0), (9, None)], None)
@settings(max_examples=60)
def test_aggregates_equal_their_definitions(given_rows: list[Timed], random: Any) -> None:
    in_time = sorted(given_rows, key=lambda row: row[0])
    frame = _rows(*in_time)
    if random:
        order = list(range(frame.height))
        random.shuffle(order)
        frame = frame[order]
    (found,) = _computed(TABLE, frame).select(*EXPRESSIONS).to_dicts()
    right = expected(in_time)
    assert {name: found[name] for name in found if not is_same(found[name], right[name])} == {}


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_comparison_bites(name: str) -> None:
    rows: list[Timed] = [(0, -3.0), (10, 5.0), (30, None), (40, 7.0), (90, 20.0)]
    other: list[Timed] = [(0, 4.0), (11, 5.5), (50, 7.0), (51, 7.0), (52, None), (53, 8.0), (90, -15.0)]
    assert not is_same(expected(rows)[name], expected(other)[name])


def test_what_is_no_number_is_counted_in_the_rest() -> None:
    """Silver holds no such value, but an expression over a gold table may."""
    rows = _rows((0, 1.0), (1, nan), (2, inf), (3, 30.0))
    assert _value("histogram(measurement, [1, 2])", rows) == [[1, 0, 3]]
    assert _value("slope(measurement)", rows) == [None]


def test_windows_without_rows_are_not_made() -> None:
    assert _computed(TABLE, _rows()).is_empty()
    late = _rows((0, 1.0), (900, 2.0))
    assert _computed(TABLE, late)["window_start"].to_list() == [_START, _START + timedelta(minutes=15)]
