"""The first of a key stays, an equal one is counted, another one is a conflict; in any batching."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.table import Table, column, declare
from pipelines.deduplication import deduplicate

Row = tuple[int | None, str, float | None]
_COLUMNS = (
    column("site", pl.Int64, "Site"),
    column("sensor", pl.String, "Sensor", required=True),
    column("value", pl.Float64, "Value"),
    column("note", pl.String, "What may differ"),
)
READINGS: Table = declare(
    layer="silver", name="readings", description="", columns=_COLUMNS, key=("site", "sensor"), value=("value",)
)
POSITION = {"stream": pl.String, "sequence": pl.Int64, "row": pl.Int32}
SCHEMA = {"site": pl.Int64, "sensor": pl.String, "value": pl.Float64, "note": pl.String, **POSITION}


def frame(rows: list[Row], *, start: int = 0) -> pl.DataFrame:
    """Rows as they landed, ten a segment; ``note`` tells their number."""
    numbered = [(*row, str(number), "c/e", number // 10 + 1, number % 10) for number, row in enumerate(rows, start)]
    return pl.DataFrame(numbered, SCHEMA, orient="row")


def stored(rows: list[Row]) -> pl.DataFrame:
    return frame(rows).select("site", "sensor", "value")


NOTHING = stored([])


def notes(rows: pl.DataFrame) -> list[int]:
    return sorted(int(note) for note in rows["note"])


def test_rows_of_different_keys_all_stay() -> None:
    rows = frame([(1, "a", 1.0), (1, "b", 1.0), (2, "a", 1.0), (None, "a", 1.0)])
    found = deduplicate(READINGS, rows, NOTHING)
    assert found.fresh.equals(rows)
    assert (found.duplicates, found.conflicts.height) == (0, 0)


def test_first_in_landing_order_stays_however_rows_are_ordered() -> None:
    rows = frame([(1, "a", 1.0), (1, "a", 2.0), (1, "a", 1.0)])
    for shuffled in (rows, rows.reverse(), rows[[1, 2, 0]]):
        found = deduplicate(READINGS, shuffled, NOTHING)
        assert notes(found.fresh) == [0]
        assert found.duplicates == 1
        assert found.conflicts.select("sequence", "row").rows() == [(1, 1)]


def test_stored_row_comes_before_any_that_arrives() -> None:
    found = deduplicate(READINGS, frame([(1, "a", 2.0), (1, "a", 1.0), (1, "b", 1.0)]), stored([(1, "a", 1.0)]))
    assert notes(found.fresh) == [2]
    assert (found.duplicates, found.conflicts["row"].to_list()) == (1, [0])


def test_conflict_says_what_is_kept_and_what_came() -> None:
    (conflict,) = deduplicate(READINGS, frame([(1, "a", 1.5), (1, "a", 2.5)]), NOTHING).conflicts.to_dicts()
    assert conflict["reason"] == "key_conflict"
    assert conflict["message"] == (
        'silver.readings: a row of this key is here with {"value":1.5}; this one says {"value":2.5}'
    )


def test_null_is_a_value_and_a_key() -> None:
    """Two nulls are the same value; a null and a number are not."""
    rows = frame([(None, "a", None), (None, "a", None), (None, "a", 1.0), (1, "a", 1.0)])
    found = deduplicate(READINGS, rows, NOTHING)
    assert notes(found.fresh) == [0, 3]
    assert (found.duplicates, found.conflicts["row"].to_list()) == (1, [2])
    again = deduplicate(READINGS, rows, found.fresh.select("site", "sensor", "value"))
    assert again.fresh.is_empty() and (again.duplicates, again.conflicts["row"].to_list()) == (3, [2])


def test_only_the_value_columns_are_compared() -> None:
    found = deduplicate(READINGS, frame([(1, "a", 1.0), (1, "a", 1.0)]), NOTHING)
    assert (found.duplicates, found.conflicts.height) == (1, 0)
    strict = replace(READINGS, value=("value", "note"))
    existing = frame([]).select("site", "sensor", "value", "note")
    found = deduplicate(strict, frame([(1, "a", 1.0), (1, "a", 1.0)]), existing)
    assert (found.duplicates, found.conflicts.height) == (0, 1)


@pytest.mark.parametrize("existing", [[], [(9, "z", 1.0)]])
def test_nothing_came(existing: list[Row]) -> None:
    found = deduplicate(READINGS, frame([]), stored(existing))
    assert found.fresh.schema == frame([]).schema and found.fresh.is_empty()
    assert found.conflicts.columns == [*POSITION, "reason", "message"]


rows_of = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 2)),
        st.sampled_from("ab"),
        st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 2.0])),
    ),
    max_size=30,
)


def one_by_one(rows: list[Row]) -> tuple[list[int], int, list[int]]:
    """The definition: fresh rows, number of duplicates, conflicts."""
    first: dict[Any, float | None] = {}
    fresh, duplicates, conflicts = [], 0, []
    for number, (site, sensor, value) in enumerate(rows):
        if (site, sensor) not in first:
            first[site, sensor] = value
            fresh.append(number)
        elif first[site, sensor] == value:
            duplicates += 1
        else:
            conflicts.append(number)
    return fresh, duplicates, conflicts


@given(rows_of, st.lists(st.integers(0, 30), max_size=4), st.randoms(use_true_random=False))
def test_any_batching_equals_one_by_one(rows: list[Row], cuts: list[int], random: Any) -> None:
    """Batches in order, rows of a batch in any order; what was fresh is stored for the next."""
    kept, duplicates, conflicts = NOTHING, 0, list[int]()
    fresh: list[int] = []
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for low, high in pairwise(bounds):
        batch = frame(rows[low:high], start=low)
        order = list(range(high - low))
        random.shuffle(order)
        found = deduplicate(READINGS, batch[order], kept)
        kept = pl.concat([kept, found.fresh.select(kept.columns)])
        fresh += notes(found.fresh)
        duplicates += found.duplicates
        conflicts += ((found.conflicts["sequence"] - 1) * 10 + found.conflicts["row"]).to_list()
    assert (sorted(fresh), duplicates, sorted(conflicts)) == one_by_one(rows)
