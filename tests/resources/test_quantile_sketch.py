"""Sketches: the same in any order and parts, quantiles within the stated error of the exact ones."""

from collections.abc import Sequence
from math import inf, nan

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assets.expressions import evaluate
from resources.errors import TableFunctionError
from resources.quantile_sketch import RELATIVE_ERROR

SHARES = (0, 0.01, 0.25, 0.5, 0.95, 1)


def sketches(values: Sequence[float | None], parts: list[int]) -> pl.DataFrame:
    """A sketch of each part."""
    rows = pl.DataFrame({"part": parts, "x": values}, {"part": pl.Int64, "x": pl.Float64})
    return evaluate("SELECT part, __secchi_sketch(x) AS s FROM input GROUP BY part", rows)


def merged(rows: pl.DataFrame) -> list[int] | None:
    found = evaluate("SELECT __secchi_sketch_merge(s) AS s FROM input", rows)["s"].to_list()[0]
    assert found is None or isinstance(found, list)
    return found


def quantiles(rows: pl.DataFrame, *shares: float) -> list[float | None]:
    asked = (f"__secchi_sketch_quantile(s, {share}) AS q{number}" for number, share in enumerate(shares or SHARES))
    return list(evaluate(f"SELECT {', '.join(asked)} FROM input", rows).row(0))


def quantile(rows: pl.DataFrame, share: float) -> float | None:
    return quantiles(rows, share)[0]


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=64),
    st.floats(-1000, 1000),
    st.integers(-5, 5).map(float),
)
held = st.lists(st.tuples(numbers, st.integers(0, 5)), min_size=1, max_size=60)


@given(held)
@example([(5e-324, 0), (-5e-324, 1), (0.0, 2), (1.7976931348623157e308, 3), (-1.7976931348623157e308, 3)])
@settings(max_examples=25)
def test_any_order_and_parts_give_one_sketch(rows: list[tuple[float, int]]) -> None:
    values, parts = [v for v, _ in rows], [p for _, p in rows]
    once = sketches(values, [0] * len(values))
    shuffled = sorted(rows, key=lambda row: (row[1] * 7 % 5, -row[0]))
    several = sketches([v for v, _ in shuffled], [p for _, p in shuffled])
    assert merged(several) == merged(several[::-1]) == merged(sketches(values, parts)) == once["s"].to_list()[0]
    halves = [several[: several.height // 2], several[several.height // 2 :]]
    twice = pl.DataFrame({"s": [merged(half) for half in halves]}, {"s": pl.List(pl.Int64)})
    assert merged(twice) == merged(once)
    assert quantiles(twice) == quantiles(once)


@given(st.lists(numbers, min_size=1, max_size=80))
@settings(max_examples=40)
def test_quantile_is_within_the_error(values: list[float]) -> None:
    """Of each neighbour, and so of what lies between them; beyond 1.7e308 and below 1e-300 nothing is promised."""
    kept = [v for v in values if v == 0 or 1e-300 < abs(v) < 1.7e308]
    ordered = sorted(kept)
    rows = sketches([*kept, None, nan], [0] * (len(kept) + 2))
    for share, found in zip(SHARES, quantiles(rows), strict=True):
        if not ordered:
            assert found is None
            continue
        place = share * (len(ordered) - 1)
        low, high, part = ordered[int(place)], ordered[-int(-place // 1)], place % 1
        exact = (1 - part) * low + part * high
        bound = (1 - part) * abs(low) + part * abs(high)
        assert found is not None and abs(found - exact) <= RELATIVE_ERROR * bound * 1.0001


def test_error_is_met_by_no_smaller_one() -> None:
    """The bound would be broken if it were a tenth less."""
    values = [1.0 + i / 1000 for i in range(1000)]
    found = evaluate(
        "SELECT part, __secchi_sketch_quantile(s, 0.5) AS q FROM input GROUP BY part ORDER BY part",
        sketches(values, list(range(1000))),
    )
    worst = max(abs(q / v - 1) for q, v in zip(found["q"], values, strict=True))
    assert 0.9 * RELATIVE_ERROR < worst <= RELATIVE_ERROR * 1.0001


def test_what_is_no_number_is_in_no_bucket() -> None:
    assert merged(sketches([None, nan], [0, 0])) is None
    assert quantile(sketches([None, 3.0, nan], [0, 0, 0]), 0.5) == pytest.approx(3, rel=RELATIVE_ERROR)
    assert quantile(sketches([inf, -inf, 0.0], [0, 1, 2]), 0.5) == 0
    assert quantile(sketches([1.0, 2.0], [0, 1]), -1) == pytest.approx(1, rel=RELATIVE_ERROR)


def test_histogram_is_no_sketch() -> None:
    with pytest.raises(TableFunctionError, match="this is no sketch"):
        quantile(pl.DataFrame({"s": [[3, 0, 2]]}), 0.5)
