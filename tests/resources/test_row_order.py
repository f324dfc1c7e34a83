"""Rows are sorted as polars sorts them."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from resources.row_order import sort_rows

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "at": pl.Datetime("us", "UTC"),
    "name": pl.String,
    "whole": pl.Int64,
    "small": pl.Int32,
    "share": pl.Float64,
    "place": pl.Int64,
}
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
ROWS = st.tuples(
    st.none() | TIMES,
    st.none() | st.sampled_from(["", "a", "b", "ä", "aa"]) | st.text(max_size=3),
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 1),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.floats(allow_nan=False),
)


@given(st.lists(ROWS, max_size=40), st.permutations(["at", "name", "whole", "small"]), st.integers(1, 4), st.booleans())
def test_the_order_is_that_of_polars(rows: list[tuple[object]], names: list[str], count: int, has_float: bool) -> None:
    frame = pl.DataFrame([(*row, place) for place, row in enumerate(rows)], SCHEMA, orient="row")
    by = [*names[:count], *(["share"] if has_float else [])]
    assert_frame_equal(sort_rows(frame, by), frame.sort(by, maintain_order=True))


def test_more_than_one_integer_holds_is_sorted_too() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [(start + timedelta(days=n % 7), str(n % 5), n % 3 * 2**40, -n % 11, n % 2 / 2, n) for n in range(500)]
    frame = pl.DataFrame(rows, SCHEMA, orient="row")
    by = ["name", "whole", "at", "small", "place"]
    assert_frame_equal(sort_rows(frame, by), frame.sort(by))
    assert sort_rows(frame, ["place"]) is frame
