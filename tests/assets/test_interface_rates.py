"""Steps of interface counters: what is a rate, and what is none."""

import itertools
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.gold.interface_rates_1m import interface_rates_1m
from assets.silver.counter_rates import counter_rates
from assets.snmp_uptimes import GAP
from tests.assets.counters import T0, Sample, frame

MINUTE = timedelta(minutes=1)
COLUMNS = [
    n
    for n in interface_rates_1m.schema
    if n not in ("is_final", "revision", "corrected_at", "is_retracted", "batch_id")
]


def rates(*frames: pl.DataFrame) -> list[dict[str, Any]]:
    assert interface_rates_1m.function is not None and counter_rates.function is not None
    output: pl.DataFrame = interface_rates_1m.function(counter_rates.function(pl.concat(frames)))
    assert output.schema == {n: t for n, t in interface_rates_1m.schema.items() if n in COLUMNS}
    return output.to_dicts()


def steps(row: dict[str, Any]) -> tuple[int, int, int, int]:
    return row["steps_normal"], row["steps_wrap"], row["steps_reset"], row["steps_gap"]


def test_rate_utilisation_and_name() -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", 1000 + s * 12_500) for s in range(0, 60, 10)]
    samples += [(s, "ifHCOutOctets", s * 1_250) for s in range(0, 60, 10)]
    samples += [(0.5, "ifName", "Gi0/3"), (0.5, "ifHighSpeed", 1), (0.5, "ifDescr", "GigabitEthernet0/3")]
    (row,) = rates(frame(samples))
    assert (row["device_id"], row["interface_id"], row["if_index"]) == ("sw1:161", "ifName:Gi0/3", 3)
    assert row["if_name"] == "Gi0/3"
    assert (row["window_start"], row["window_end"]) == (T0, T0 + MINUTE)
    assert row["in_bits_per_second"] == pytest.approx(100_000)
    assert row["out_bits_per_second"] == pytest.approx(10_000)
    assert row["in_utilisation_ratio"] == pytest.approx(0.1)
    assert row["out_utilisation_ratio"] == pytest.approx(0.01)
    assert row["speed_bits_per_second"] == 1_000_000
    assert steps(row) == (10, 0, 0, 2)


def test_a_step_belongs_to_the_minute_of_its_later_sample() -> None:
    first, second = rates(frame([(50, "ifHCInOctets", 0), (70, "ifHCInOctets", 2000)]))
    assert (first["in_bits_per_second"], steps(first)) == (None, (0, 0, 0, 1))
    assert (second["in_bits_per_second"], steps(second)) == (800.0, (1, 0, 0, 0))


def test_counts_above_2_to_the_53_are_exact() -> None:
    (row,) = rates(frame([(0, "ifHCInOctets", 2**63), (10, "ifHCInOctets", 2**63 + 1001)]))
    assert row["in_bits_per_second"] == pytest.approx(800.8)


@pytest.mark.parametrize(("speed", "expected"), [(1000, (1, 1, 0, 1)), (0, (1, 0, 1, 1)), (None, (1, 0, 1, 1))])
def test_a_wrap_needs_a_link_that_can_carry_it(speed: int | None, expected: tuple[int, ...]) -> None:
    samples: list[Sample] = [(0, "ifHCInOctets", 2**64 - 1000), (10, "ifHCInOctets", 1000), (20, "ifHCInOctets", 3000)]
    if speed is not None:
        samples.append((0, "ifHighSpeed", speed))
    (row,) = rates(frame(samples))
    assert steps(row) == expected
    assert row["in_bits_per_second"] == 1600.0


def test_a_counter_that_went_back_is_a_reset_not_a_wrap() -> None:
    samples = [
        (0, "ifHighSpeed", 10_000),
        (0, "ifHCInOctets", 10**12),
        (10, "ifHCInOctets", 50),
        (20, "ifHCInOctets", 1050),
    ]
    (row,) = rates(frame(samples))
    assert steps(row) == (1, 0, 1, 1)
    assert row["in_bits_per_second"] == 800.0


@pytest.mark.parametrize("lag", [-0.01, 0, 0.01], ids=["before", "same PDU", "after"])
def test_a_restart_is_seen_in_sysuptime_although_the_counter_went_on(lag: float) -> None:
    samples: list[Sample] = [(0, "ifHCInOctets", 0), (10, "ifHCInOctets", 9_000_000), (20, "ifHCInOctets", 9_001_000)]
    samples += [(lag, "sysUpTime", 500_000), (10 + lag, "sysUpTime", 300), (20 + lag, "sysUpTime", 1300)]
    (row,) = rates(frame(samples))
    assert steps(row) == (1, 0, 1, 1)
    assert row["in_bits_per_second"] == 800.0


def test_the_roll_over_of_sysuptime_is_no_restart() -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in range(0, 60, 10)]
    samples += [(s + 0.5, "sysUpTime", (2**32 - 2500 + s * 100) % 2**32) for s in range(0, 60, 10)]
    (row,) = rates(frame(samples))
    assert steps(row) == (5, 0, 0, 1)


def test_a_restart_near_the_roll_over_is_one() -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in range(0, 60, 10)]
    samples += [(s, "sysUpTime", 2**32 - 60_000 + s * 100) for s in (0, 10, 20)]
    samples += [(s, "sysUpTime", (s - 25) * 100) for s in (30, 40, 50)]
    (row,) = rates(frame(samples))
    assert steps(row) == (4, 0, 1, 1)


def test_a_restart_behind_the_roll_over_is_one() -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in range(0, 180, 10)]
    samples += [(s, "sysUpTime", (2**32 - 1500 + s * 100) % 2**32) for s in range(0, 120, 10)]
    samples += [(s, "sysUpTime", (s - 115) * 100) for s in range(120, 180, 10)]
    assert [steps(row) for row in rates(frame(samples))] == [(5, 0, 0, 1), (6, 0, 0, 0), (5, 0, 1, 0)]


@pytest.mark.parametrize("lag", [0, 0.5], ids=["same PDU", "behind"])
def test_a_discontinuity_of_the_interface_is_a_reset(lag: float) -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in range(0, 60, 10)]
    samples += [(s + lag, "ifCounterDiscontinuityTime", 0 if s < 30 else 777) for s in range(0, 60, 10)]
    (row,) = rates(frame(samples))
    assert steps(row) == (4, 0, 1, 1)
    assert row["in_bits_per_second"] == 8000.0


def test_a_restart_of_another_device_changes_nothing() -> None:
    mine = frame([(0, "ifHCInOctets", 0), (10, "ifHCInOctets", 1000), (10, "sysUpTime", 10_000)])
    other = frame([(10, "sysUpTime", 100)], device="sw2:161")
    assert [steps(r) for r in rates(mine, other)] == [(1, 0, 0, 1)]


def test_a_gap_has_no_rate_and_the_bound_is_inclusive() -> None:
    seconds = GAP.total_seconds()
    samples = [(0, "ifHCInOctets", 0), (seconds, "ifHCInOctets", 3000), (2 * seconds + 1, "ifHCInOctets", 6000)]
    rows = rates(frame(samples))
    assert [steps(r) for r in rows] == [(0, 0, 0, 1), (1, 0, 0, 0), (0, 0, 0, 1)]
    assert [r["in_bits_per_second"] for r in rows] == [None, 80.0, None]


def test_saturated_ifspeed_is_ignored_and_a_true_one_used() -> None:
    counter = [(0, "ifHCInOctets", 0), (10, "ifHCInOctets", 1250)]
    (saturated,) = rates(frame([*counter, (0, "ifSpeed", 4_294_967_295)]))
    assert (saturated["speed_bits_per_second"], saturated["in_utilisation_ratio"]) == (None, None)
    (true,) = rates(frame([*counter, (0, "ifSpeed", 10_000), (0, "ifHighSpeed", 0), (0, "ifDescr", "eth0")]))
    assert (true["speed_bits_per_second"], true["in_utilisation_ratio"], true["if_name"]) == (10_000, 0.1, "eth0")


def test_no_interface_samples_make_no_rows() -> None:
    assert rates(frame([(0, "sysUpTime", 1)])) == []
    assert rates(frame([(0, "sysUpTime", 1)]).clear()) == []


def test_interfaces_and_devices_do_not_mix() -> None:
    frames = [
        frame([(0, "ifHCInOctets", 0), (10, "ifHCInOctets", 1000 * n)], device, index)
        for n, (device, index) in enumerate([("a:1", 1), ("a:1", 2), ("b:1", 1)], 1)
    ]
    assert [r["in_bits_per_second"] for r in rates(*frames)] == [800.0, 1600.0, 2400.0]


times = st.lists(st.integers(0, 1800), min_size=2, max_size=40, unique=True).map(sorted)


@given(times, st.data())
@settings(max_examples=25)
def test_octets_of_a_steady_counter_are_all_accounted_for(seconds: list[int], data: st.DataObject) -> None:
    grown = data.draw(st.lists(st.integers(0, 10**9), min_size=len(seconds), max_size=len(seconds)))
    start = data.draw(st.integers(0, 2**64 - 1))
    counts, total = [], start
    for step in grown:
        total = (total + step) % 2**64
        counts.append(total)
    samples: list[Sample] = [(s, "ifHCInOctets", c) for s, c in zip(seconds, counts, strict=True)]
    samples += [(s, "ifHighSpeed", 100_000) for s in seconds]
    rows = rates(frame(samples))
    near = [(b - a) <= GAP.total_seconds() for a, b in itertools.pairwise(seconds)]
    by_minute: dict[int, list[tuple[int, int]]] = {}
    for i, is_near in enumerate(near, 1):
        if is_near:
            by_minute.setdefault(seconds[i] // 60, []).append((grown[i], seconds[i] - seconds[i - 1]))
    for row in rows:
        good = by_minute.get(int((row["window_start"] - T0).total_seconds()) // 60)
        expected = None if good is None else sum(g for g, _ in good) * 8 / sum(s for _, s in good)
        assert row["in_bits_per_second"] == (None if expected is None else pytest.approx(expected))
    assert sum(r["steps_gap"] for r in rows) == len(seconds) - sum(near)
    assert sum(r["steps_normal"] + r["steps_wrap"] for r in rows) == sum(near)
