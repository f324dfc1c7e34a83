"""What agents say of themselves, and since when."""

from random import Random
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.silver.device_descriptions import device_descriptions
from tests.assets.counters import T0, Sample, frame

LOCATIONS = ["BN:HQ/FN:1/DCRN:D2/RCKN:4", "BN:HQ/FN:2/NR:B", ""]


def rows(samples: pl.DataFrame) -> list[dict[str, Any]]:
    assert device_descriptions.function is not None
    output: pl.DataFrame = device_descriptions.function(samples)
    engine = ("is_retracted", "batch_id")
    assert output.schema == {n: t for n, t in device_descriptions.schema.items() if n not in engine}
    return output.to_dicts()


def since(samples: list[Sample], *columns: str) -> list[tuple[Any, ...]]:
    return [((row["observed_at"] - T0).total_seconds(), *(row[c] for c in columns)) for row in rows(frame(samples))]


def test_a_row_is_made_where_something_changes() -> None:
    samples: list[Sample] = [(s, "sysName", "sw-1") for s in range(0, 240, 30)]
    samples += [(s, "sysLocation", LOCATIONS[s >= 90]) for s in range(0, 240, 30)]
    assert since(samples, "sys_name", "building", "floor", "room", "rack") == [
        (0, "sw-1", "HQ", "1", "D2", "4"),
        (90, "sw-1", "HQ", "2", "B", None),
    ]


def test_facts_of_several_polls_are_one_description() -> None:
    samples: list[Sample] = [(s, "sysName", "sw-1") for s in range(0, 240, 30)]
    samples += [(s + 10, "sysDescr", "a switch") for s in range(0, 240, 30)]
    assert since(samples, "sys_name", "sys_descr") == [(0, "sw-1", None), (10, "sw-1", "a switch")]


def test_an_agent_that_was_away_describes_itself_again() -> None:
    assert since([(0, "sysName", "a"), (300, "sysName", "a"), (601, "sysName", "a")], "sys_name") == [
        (0, "a"),
        (601, "a"),
    ]


facts = st.sampled_from([("sysName", "a"), ("sysName", "b"), *(("sysLocation", place) for place in LOCATIONS)])
told = st.lists(st.tuples(st.integers(0, 30).map(lambda n: 60 * n), facts), max_size=30, unique_by=lambda t: t[0])


@given(told, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_a_row_computed_within_its_reach_equals_a_computation_of_all(
    polls: list[tuple[int, tuple[str, str]]], random: Random
) -> None:
    if not polls:
        return
    whole, window = frame([(s, name, value) for s, (name, value) in polls]), device_descriptions.window
    assert window is not None
    for row in rows(whole.sample(fraction=1, shuffle=True, seed=random.randrange(100))):
        at = row["observed_at"]
        reach = pl.col("observed_at").is_between(at - window.reach_ahead, at + window.reach_back)
        assert row in rows(whole.filter(reach))
