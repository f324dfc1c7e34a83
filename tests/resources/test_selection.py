"""Conditions that prune and filter."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from resources.selection import coalesce, without


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=40),
    st.integers(1, 12),
)
def test_coalesced_ranges_are_a_sorted_superset(spans: list[tuple[int, int]], most: int) -> None:
    ranges = [(low, low + size) for low, size in spans]
    joined = coalesce(ranges, most)
    covered = {n for low, high in joined for n in range(low, high)}
    wanted = {n for low, high in ranges for n in range(low, high)}
    assert wanted <= covered
    assert len(joined) <= most
    assert all(before[1] < after[0] for before, after in pairwise(joined)), "sorted, none touch"
    assert all(any(low == r[0] for r in ranges) and any(high == r[1] for r in ranges) for low, high in joined)
    if len(coalesce(ranges, len(ranges) + 1)) <= most:
        assert covered == wanted, "nothing more than asked for, where there is room"


def test_coalescing_closes_the_smallest_gaps() -> None:
    assert coalesce([(0, 1), (2, 3), (10, 11), (100, 101)], 3) == [(0, 3), (10, 11), (100, 101)]
    assert coalesce([(0, 1), (2, 3), (10, 11), (100, 101)], 1) == [(0, 101)]
    assert coalesce([]) == []


spans_of = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda s: (s[0], sum(s))), max_size=8)


@given(spans_of, spans_of)
def test_without_leaves_what_no_other_range_holds(ranges: list[tuple[int, int]], taken: list[tuple[int, int]]) -> None:
    def covered(given: list[tuple[int, int]]) -> set[int]:
        return {n for low, high in given for n in range(low, high)}

    left = without(ranges, taken)
    assert covered(left) == covered(ranges) - covered(taken)
    assert all(low < high for low, high in left)
