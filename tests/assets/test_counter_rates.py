"""Steps of counters: how each is judged, and by what."""

from datetime import timedelta
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.counter_steps import GOOD, STEPS
from assets.silver.counter_rates import counter_rates
from tests.assets.counters import T0, Sample, frame, of_two

COLUMNS = [n for n in counter_rates.schema if n not in ("is_retracted", "batch_id")]


def steps(*frames: pl.DataFrame) -> list[dict[str, Any]]:
    assert counter_rates.function is not None
    output: pl.DataFrame = counter_rates.function(pl.concat(frames))
    assert output.schema == {n: t for n, t in counter_rates.schema.items() if n in COLUMNS}
    return output.sort("observed_at", "counter", "metric_oid").to_dicts()


def judged(samples: list[Sample]) -> list[tuple[str, int | None]]:
    return [(row["step"], None if row["delta"] is None else int(row["delta"])) for row in steps(frame(samples))]


def test_a_step_has_its_samples_delta_and_rate() -> None:
    first, second = steps(frame([(0, "ifHCInOctets", 2**63), (10, "ifHCInOctets", 2**63 + 1001)]))
    assert (first["step"], first["before_at"], first["delta"], first["rate_per_second"]) == ("gap", None, None, None)
    assert (second["counter"], second["instance_id"], second["if_index"]) == ("ifHCInOctets", "ifIndex:3", 3)
    assert second["observed_at"] - second["before_at"] == timedelta(seconds=10)
    assert (second["counter_before"], second["counter_value"]) == (2**63, 2**63 + 1001)
    assert (second["step"], second["delta"], second["rate_per_second"]) == ("normal", 1001, 100.1)


@pytest.mark.parametrize(
    ("speed", "expected"),
    [(100, [("gap", None), ("wrap32", 2000)]), (None, [("gap", None), ("reset", None)])],
    ids=["link that can carry it", "nothing speaks for it"],
)
def test_counter32_wraps_where_something_speaks_for_it(speed: int | None, expected: list[Any]) -> None:
    samples: list[Sample] = [(0, "ifInOctets", 2**32 - 1000), (10, "ifInOctets", 1000)]
    assert judged(samples + ([(0, "ifHighSpeed", speed)] if speed else [])) == expected


@pytest.mark.parametrize(
    ("before", "behind", "expected"),
    [(2**32 - 5, 3, ("wrap32", 8)), (5, 3, ("reset", None))],
    ids=["a little over the edge", "most of the range"],
)
def test_counter32_of_no_link_wraps_where_the_agent_ran_on(before: int, behind: int, expected: Any) -> None:
    samples: list[Sample] = [(0, "ifInErrors", before), (10, "ifInErrors", behind)]
    assert judged([*samples, (0, "sysUpTime", 900_000), (10, "sysUpTime", 901_000)])[1] == expected
    assert judged(samples)[1] == ("reset", None)


def test_counter32_that_a_slow_link_cannot_have_carried_is_a_reset() -> None:
    samples: list[Sample] = [(0, "ifSpeed", 9600), (0, "ifInOctets", 3 * 10**9), (10, "ifInOctets", 100)]
    uptimes: list[Sample] = [(0, "sysUpTime", 900_000), (10, "sysUpTime", 901_000)]
    assert judged(samples + uptimes)[1] == ("reset", None)


def test_counter64_wraps() -> None:
    samples: list[Sample] = [(0, "ifHighSpeed", 1), (0, "ifHCInOctets", 2**64 - 1), (10, "ifHCInOctets", 4)]
    assert judged(samples)[1] == ("wrap64", 5)


def test_more_than_the_link_can_carry_is_implausible() -> None:
    counter: list[Sample] = [(0, "ifHCInOctets", 0), (10, "ifHCInOctets", 10**9)]
    assert judged([*counter, (0, "ifHighSpeed", 100)])[1] == ("implausible", None)
    assert judged([*counter, (0, "ifHighSpeed", 1000)])[1] == ("normal", 10**9)
    assert judged([*counter, (0, "ifSpeed", 4_294_967_295)])[1] == ("normal", 10**9), "it says nothing"
    assert judged([*counter, (0, "ifSpeed", 4_294_967_295), (0, "ifHighSpeed", 100)])[1] == ("implausible", None)
    errors: list[Sample] = [(0, "ifInErrors", 0), (10, "ifInErrors", 10**9), (0, "ifHighSpeed", 1)]
    assert judged(errors)[1] == ("normal", 10**9), "a link carries bits"


def test_reboot_and_the_roll_over_of_sysuptime() -> None:
    counter: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in range(0, 60, 10)]
    rolled: list[Sample] = [(s + 1, "sysUpTime", (2**32 - 2500 + s * 100) % 2**32) for s in range(0, 60, 10)]
    assert [step for step, _ in judged(counter + rolled)] == ["gap", *["normal"] * 5]
    rebooted: list[Sample] = [(s + 1, "sysUpTime", (s - 25) * 100 + 10**8 * (s < 30)) for s in range(0, 60, 10)]
    assert [step for step, _ in judged(counter + rebooted)] == ["gap", "normal", "normal", "reboot", "normal", "normal"]


def test_a_reboot_that_only_the_earlier_sysuptime_tells() -> None:
    """Two restarts: the second one hides the first from the sysUpTime behind the step."""
    counter: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in (0, 20, 40)]
    uptimes: list[Sample] = [(0, "sysUpTime", 10**6), (15, "sysUpTime", 500), (45, "sysUpTime", 1500)]
    assert [step for step, _ in judged(counter + uptimes)] == ["gap", "reboot", "reboot"]


@pytest.mark.parametrize("lag", [-0.4, 0, 0.4], ids=["before", "same PDU", "behind"])
def test_a_discontinuity_is_of_the_step_between_the_polls_that_tell_it(lag: float) -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in range(1, 60, 10)]
    samples += [(s + lag, "ifCounterDiscontinuityTime", 0 if s < 30 else 777) for s in range(1, 60, 10)]
    assert [step for step, _ in judged(samples)] == ["gap", "normal", "normal", "discontinuity", "normal", "normal"]


def test_a_gap_of_five_minutes_is_still_a_step() -> None:
    counter: list[Sample] = [(0, "ifHCInOctets", 0), (300, "ifHCInOctets", 1), (601, "ifHCInOctets", 2)]
    assert judged(counter) == [("gap", None), ("normal", 1), ("gap", None)]


def test_a_counter_without_a_name_is_one_by_its_oid() -> None:
    unnamed = frame([(0, "ifInErrors", 1), (10, "ifInErrors", 3)]).with_columns(
        pl.lit(None, pl.String).alias(n) for n in ("object_name", "mib_module", "instance", "instance_identifier")
    )
    _, row = steps(unnamed)
    assert (row["counter"], row["instance_id"], row["if_index"], row["delta"]) == ("ifInErrors.3", "", None, 2)


def identities(*frames: pl.DataFrame) -> list[tuple[int, str]]:
    rows = steps(*frames)
    return sorted({(row["if_index"], row["instance_id"]) for row in rows})


@pytest.mark.parametrize("name", ["ifName", "ifDescr", "ifAlias", "ifPhysAddress"])
def test_an_interface_is_known_by_the_first_name_that_it_has(name: str) -> None:
    names = ["ifName", "ifDescr", "ifAlias", "ifPhysAddress"]
    told: list[Sample] = [(0, n, "" if names.index(n) < names.index(name) else f"its {n}") for n in names]
    assert identities(frame([(0, "ifHCInOctets", 1), *told])) == [(3, f"{name}:its {name}")]


def test_a_name_of_two_interfaces_is_none() -> None:
    first = frame([(0, "ifHCInOctets", 1), (0, "ifName", "eth"), (0, "ifDescr", "left")], index=1)
    second = frame([(0, "ifHCInOctets", 1), (0, "ifName", "eth")], index=2)
    assert identities(first, second) == [(1, "ifDescr:left"), (2, "ifIndex:2")]


def test_a_step_goes_on_where_the_interface_has_another_index() -> None:
    """A card was plugged in: numbers moved, the agent ran on."""
    first = frame([(0, "ifHCInOctets", 1000), (0, "ifName", "Gi1")], index=1)
    moved = frame([(10, "ifHCInOctets", 1500), (10, "ifName", "Gi1")], index=2)
    other = frame([(10, "ifHCInOctets", 7), (10, "ifName", "Gi0")], index=1)
    rows = [(row["instance_id"], row["if_index"], row["step"], row["delta"]) for row in steps(first, moved, other)]
    assert sorted(rows, key=repr) == [
        ("ifName:Gi0", 1, "gap", None),
        ("ifName:Gi1", 1, "gap", None),
        ("ifName:Gi1", 2, "normal", 500),
    ]


def test_names_of_another_poll_count_until_the_agent_starts_anew() -> None:
    names: list[Sample] = [(0, "ifName", "Gi1"), (65, "ifName", "Gi2")]
    counter: list[Sample] = [(s, "ifHCInOctets", s) for s in (10, 20, 50, 70)]
    uptimes: list[Sample] = [(10, "sysUpTime", 10**6), (50, "sysUpTime", 500), (70, "sysUpTime", 2500)]
    told = [row["instance_id"] for row in steps(frame(counter + names + uptimes))]
    assert told == ["ifName:Gi1", "ifName:Gi1", "ifName:Gi2", "ifName:Gi2"]


def test_nothing_makes_nothing() -> None:
    assert steps(frame([(0, "sysUpTime", 1)])) == []
    assert steps(frame([(0, "sysUpTime", 1)]).clear()) == []


values = {
    "ifHCInOctets": st.integers(0, 2**64 - 1),
    "ifInOctets": st.integers(0, 2**32 - 1),
    "ifInErrors": st.integers(0, 5) | st.integers(2**32 - 5, 2**32 - 1),
    "ifHighSpeed": st.integers(0, 400_000),
    "ifSpeed": st.sampled_from([0, 10_000_000, 4_294_967_295]),
    "ifName": st.sampled_from(["", "Gi1", "Gi2"]),
    "ifDescr": st.sampled_from(["a", "b"]),
    "sysUpTime": st.integers(0, 40_000) | st.integers(2**32 - 40_000, 2**32 - 1),
    "ifCounterDiscontinuityTime": st.integers(0, 1),
}
# Half minutes, so that samples often meet the edges of the reach.
half_minutes = st.tuples(st.integers(0, 50), st.integers(0, 1)).map(lambda n: 30 * n[0] + n[1])
any_samples = st.lists(
    st.sampled_from(sorted(values)).flatmap(lambda n: st.tuples(half_minutes, st.just(n), values[n])),
    min_size=20,
    max_size=50,
    unique_by=lambda s: s[:2],
)


@given(any_samples, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_a_step_computed_within_its_reach_equals_a_computation_of_all(samples: list[Sample], random: Random) -> None:
    whole, window = of_two(samples), counter_rates.window
    assert window is not None
    for row in steps(whole.sample(fraction=1, shuffle=True, seed=random.randrange(100))):
        assert row["step"] in STEPS and (row["delta"] is not None) == (row["step"] in GOOD)
        at = row["observed_at"]
        reach = pl.col("observed_at").is_between(at - window.reach_ahead, at + window.reach_back)
        assert row in steps(whole.filter(reach))


def test_the_reach_is_needed() -> None:
    """Negative control of the test above: with less of it, a step is judged otherwise."""
    samples: list[Sample] = [(0, "ifHCInOctets", 5), (10, "ifHCInOctets", 6)]
    row = steps(frame(samples))[1]
    assert row not in steps(frame(samples).filter(pl.col("observed_at") >= T0 + timedelta(seconds=1)))
