"""The simulated devices over time: counters that only grow, a wrap within a minute, saturated and mirrored columns."""

from itertools import pairwise

import pytest

from pipelines.simulate.snmp_devices import Objects, pdu, server, switch, ups

IN_OCTETS, HC_IN_OCTETS = "1.3.6.1.2.1.2.2.1.10", "1.3.6.1.2.1.31.1.1.1.6"
SPEED, HIGH_SPEED = "1.3.6.1.2.1.2.2.1.5", "1.3.6.1.2.1.31.1.1.1.15"
DEVICES = pytest.mark.parametrize(
    "objects", [switch(1), ups(1), pdu(1), server(1)], ids=["switch", "ups", "pdu", "server"]
)


def at(objects: Objects, oid: str, t: float) -> int:
    _, value = objects[oid]
    now = value(t) if callable(value) else value
    assert isinstance(now, int)
    return now


@DEVICES
def test_counters_never_go_back_and_gauges_fit_their_type(objects: Objects) -> None:
    bounds = {"Integer32": (-(2**31), 2**31), "Gauge32": (0, 2**32), "TimeTicks": (0, 2**32)}
    for oid, (wire_type, _) in objects.items():
        if wire_type in {"Counter32", "Counter64"}:
            values = [at(objects, oid, t / 4) for t in range(800)]
            assert values[0] >= 0
            assert all(before <= after for before, after in pairwise(values)), oid
        elif wire_type in bounds:
            low, high = bounds[wire_type]
            assert all(low <= at(objects, oid, float(t)) < high for t in range(200)), oid


@DEVICES
def test_every_device_has_the_system_group(objects: Objects) -> None:
    assert {f"1.3.6.1.2.1.1.{n}.0" for n in range(1, 8)} <= set(objects)


def test_switch_has_eight_moving_ports_but_the_spare_one_and_a_saturated_uplink() -> None:
    objects = switch(0)
    moved = [at(objects, f"{IN_OCTETS}.{n}", 10.0) > at(objects, f"{IN_OCTETS}.{n}", 5.0) for n in range(1, 9)]
    assert moved == [True] * 7 + [False]
    assert at(objects, f"{SPEED}.7", 0) == 4_294_967_295
    assert [at(objects, f"{HIGH_SPEED}.{n}", 0) for n in (1, 7)] == [1000, 10_000]
    assert at(objects, f"{IN_OCTETS}.7", 40.0) == at(objects, f"{HC_IN_OCTETS}.7", 40.0)
    assert f"{HC_IN_OCTETS}.9" not in objects


@pytest.mark.parametrize("seed", range(5))
def test_the_servers_32_bit_octets_wrap_within_a_minute_but_not_twice_in_30_s(seed: int) -> None:
    values = [at(server(seed), f"{IN_OCTETS}.2", float(t)) for t in range(61)]
    wraps = [t for t in range(60) if values[t] // 2**32 != values[t + 1] // 2**32]
    assert 1 <= len(wraps) <= 2
    assert all(later - earlier > 30 for earlier, later in pairwise(wraps))


def test_ups_goes_on_battery_and_back() -> None:
    source, alarms, seconds = (f"1.3.6.1.2.1.33.1.{oid}.0" for oid in ("4.1", "6.1", "2.2"))
    states = [tuple(at(ups(0), oid, t) for oid in (source, alarms, seconds)) for t in (59.0, 65.0, 76.0, 185.0)]
    assert states == [(3, 0, 0), (5, 1, 5), (3, 0, 0), (5, 1, 5)]
    assert [at(ups(0), "1.3.6.1.2.1.33.1.3.1.0", t) for t in (59.0, 60.0, 185.0)] == [0, 1, 2]


def test_a_seed_gives_the_same_device_again() -> None:
    oid = f"{IN_OCTETS}.1"
    assert at(switch(3), oid, 9.0) == at(switch(3), oid, 9.0) != at(switch(4), oid, 9.0)
