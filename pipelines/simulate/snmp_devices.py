"""The simulated devices as plain data: ``{oid: (wire type, value or function of the seconds since boot)}``.

Every value is a function of time alone, so that two walks of one agent at one time agree. A counter keeps counting past
its width; the agent wraps it.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Value = int | str | bytes
ObjectValue = Value | Callable[[float], Value]
Objects = Mapping[str, tuple[str, ObjectValue]]

SATURATED_SPEED = 2**32 - 1
SWITCH_PORTS = 8
_SYSTEM = "1.3.6.1.2.1.1"
_IF = "1.3.6.1.2.1.2.2.1"
_IFX = "1.3.6.1.2.1.31.1.1.1"
_UPS = "1.3.6.1.2.1.33.1"
_ENTITY_NAME = "1.3.6.1.2.1.47.1.1.1.1.7"
_SENSOR = "1.3.6.1.2.1.99.1.1.1"
_HOST = "1.3.6.1.2.1.25"
# RFC 5612 keeps this enterprise number for examples.
_ENTERPRISE = "1.3.6.1.4.1.32473.1"
_PACKET_BYTES = 700
_UPS_OUTAGE_EVERY, _UPS_OUTAGE_FROM, _UPS_OUTAGE_FOR = 120.0, 60.0, 15.0


class Interface(NamedTuple):
    """One interface; rates are bytes a second, ``start_octets`` is where its counters stand at boot."""

    name: str
    alias: str
    speed_bps: int
    in_rate: float
    out_rate: float
    is_up: bool = True
    start_octets: int = 0


def switch(seed: int) -> Objects:
    """A switch: system group, ifTable and ifXTable with eight ports; port 7 is a 10G uplink, port 8 is shut."""
    chance = random.Random(f"switch-{seed}")
    ports = [
        Interface(f"Gi0/{n}", f"rack 4 server {n}", 10**9, chance.uniform(1e6, 2e7), chance.uniform(1e6, 2e7))
        for n in range(1, SWITCH_PORTS - 1)
    ]
    ports.append(Interface("Te1/1", "uplink core-1", 10**10, chance.uniform(1.8e8, 2.2e8), chance.uniform(5e7, 8e7)))
    ports.append(Interface("Gi0/8", "spare", 10**9, 0, 0, is_up=False))
    place = "BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4/UN:42"
    return {**system("Secchi simulated switch", 1, "sw-1", place), **interfaces(ports, chance)}


def server(seed: int) -> Objects:
    """A Linux server: system group, two interfaces, HOST-RESOURCES-MIB; eth0's 32-bit ifInOctets wraps every 45 s."""
    chance = random.Random(f"server-{seed}")
    eth0 = Interface("eth0", "", 10**9, chance.uniform(9.5e7, 1.0e8), chance.uniform(2e7, 4e7), True, 2**32 - 2 * 10**9)
    lo = Interface("lo", "", 10**7, 2e5, 2e5)
    place = "BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4/UN:12"
    return {
        **system("Linux srv-1 6.1.0 x86_64", 4, "srv-1", place, up_seconds=12 * 86_400),
        **interfaces([lo, eth0], chance),
        **_host_resources(chance),
    }


def ups(seed: int) -> Objects:
    """A UPS (UPS-MIB, RFC 1628) that runs on battery for 15 s every two minutes."""
    chance = random.Random(f"ups-{seed}")
    table: dict[str, tuple[str, ObjectValue]] = {
        "1.1.0": ("OctetString", "Secchi"),
        "1.2.0": ("OctetString", "simulated UPS"),
        "1.5.0": ("OctetString", "ups-1"),
        "2.1.0": ("Integer32", 2),
        "2.2.0": ("Integer32", lambda t: int(_outage(t) or 0)),
        "2.3.0": ("Integer32", lambda t: 42 - int((_outage(t) or 0) / 2)),
        "2.4.0": ("Integer32", lambda t: 100 - int(_outage(t) or 0)),
        "2.5.0": ("Integer32", _wave(2730, 12, 47, chance)),
        "2.7.0": ("Integer32", _wave(27, 2, 240, chance)),
        "3.1.0": ("Counter32", lambda t: int((t - _UPS_OUTAGE_FROM) // _UPS_OUTAGE_EVERY) + 1),
        "3.2.0": ("Integer32", 1),
        "4.1.0": ("Integer32", lambda t: 3 if _outage(t) is None else 5),
        "4.2.0": ("Integer32", _wave(500, 1, 31, chance)),
        "4.3.0": ("Integer32", 1),
        "6.1.0": ("Gauge32", lambda t: 0 if _outage(t) is None else 1),
    }
    volts = _wave(230, 4, 61, chance)
    table["3.3.1.2.1"] = ("Integer32", _wave(500, 1, 29, chance))
    table["3.3.1.3.1"] = ("Integer32", lambda t: volts(t) if _outage(t) is None else 0)
    table["3.3.1.4.1"] = ("Integer32", _wave(61, 8, 90, chance))
    table["3.3.1.5.1"] = ("Integer32", _wave(1400, 180, 90, chance))
    for column, mean, swing in ((2, 230, 1), (3, 57, 8), (4, 1310, 180), (5, 44, 6)):
        table[f"4.4.1.{column}.1"] = ("Integer32", _wave(mean, swing, 90, chance))
    system_group = system("Secchi simulated UPS", 2, "ups-1", "BN:HQ/FN:0/NR:N1", up_seconds=80 * 86_400)
    return {**system_group, **{f"{_UPS}.{oid}": entry for oid, entry in table.items()}}


def pdu(seed: int) -> Objects:
    """A rack PDU: system group and eight sensors of ENTITY-SENSOR-MIB (RFC 3433) with their entPhysicalName."""
    chance = random.Random(f"pdu-{seed}")
    # name, EntitySensorDataType, EntitySensorDataScale (8 milli, 9 units), precision, mean, swing, units
    sensors = (
        ("inlet voltage", 3, 9, 1, 2301, 25, "V AC"),
        ("inlet current", 5, 8, 0, 9400, 900, "A"),
        ("inlet power", 6, 9, 0, 2160, 210, "W"),
        ("frequency", 7, 9, 2, 5000, 4, "Hz"),
        ("rack temperature", 8, 9, 1, 242, 15, "deg C"),
        ("rack humidity", 9, 9, 0, 43, 5, "%RH"),
        ("fan speed", 10, 9, 0, 2900, 160, "RPM"),
        ("door closed", 12, 9, 0, 1, 0, ""),
    )
    objects = dict(system("Secchi simulated PDU", 3, "pdu-1", "BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4", up_seconds=40 * 86_400))
    for index, (name, kind, scale, precision, mean, swing, units) in enumerate(sensors, start=1):
        objects[f"{_ENTITY_NAME}.{index}"] = ("OctetString", name)
        columns: Sequence[tuple[str, ObjectValue]] = (
            ("Integer32", kind),
            ("Integer32", scale),
            ("Integer32", precision),
            ("Integer32", _wave(mean, swing, 75 + 10 * index, chance)),
            ("Integer32", 1),
            ("OctetString", units),
            ("TimeTicks", lambda t: int(t) * 100 + 40 * 86_400 * 100),
            ("Gauge32", 1000),
        )
        for column, entry in enumerate(columns, start=1):
            objects[f"{_SENSOR}.{column}.{index}"] = entry
    return objects


def system(description: str, kind: int, name: str, location: str, up_seconds: int = 0) -> Objects:
    """The system group; ``up_seconds`` is how long the device was up when the agent started."""
    return {
        f"{_SYSTEM}.1.0": ("OctetString", description),
        f"{_SYSTEM}.2.0": ("ObjectIdentifier", f"{_ENTERPRISE}.{kind}"),
        f"{_SYSTEM}.3.0": ("TimeTicks", lambda t: int((t + up_seconds) * 100)),
        f"{_SYSTEM}.4.0": ("OctetString", "operations@example.org"),
        f"{_SYSTEM}.5.0": ("OctetString", name),
        f"{_SYSTEM}.6.0": ("OctetString", location),
        f"{_SYSTEM}.7.0": ("Integer32", 72),
    }


def interfaces(ports: Sequence[Interface], chance: random.Random) -> Objects:
    """IfNumber, ifTable and ifXTable (RFC 2863); the 32-bit counters are the low halves of the 64-bit ones."""
    objects: dict[str, tuple[str, ObjectValue]] = {"1.3.6.1.2.1.2.1.0": ("Integer32", len(ports))}
    for index, port in enumerate(ports, start=1):
        for column, entry in _interface(index, port, chance).items():
            objects[f"{column}.{index}"] = entry
    return objects


def _interface(index: int, port: Interface, chance: random.Random) -> Objects:
    incoming = _count(port.in_rate, 47, chance, port.start_octets)
    outgoing = _count(port.out_rate, 53, chance, port.start_octets)
    state = 1 if port.is_up else 2
    return {
        f"{_IF}.1": ("Integer32", index),
        f"{_IF}.2": ("OctetString", port.name),
        f"{_IF}.3": ("Integer32", 24 if port.name == "lo" else 6),
        f"{_IF}.4": ("Integer32", 65_536 if port.name == "lo" else 1500),
        f"{_IF}.5": ("Gauge32", min(port.speed_bps, SATURATED_SPEED)),
        f"{_IF}.6": ("OctetString", b"" if port.name == "lo" else bytes((2, 0, 0, 0, 0, index))),
        f"{_IF}.7": ("Integer32", state),
        f"{_IF}.8": ("Integer32", state),
        f"{_IF}.9": ("TimeTicks", 0),
        f"{_IF}.10": ("Counter32", incoming),
        f"{_IF}.11": ("Counter32", lambda t: incoming(t) // _PACKET_BYTES),
        f"{_IF}.13": ("Counter32", _count(port.in_rate / 5e7, 31, chance)),
        f"{_IF}.14": ("Counter32", _count(port.in_rate / 2e8, 37, chance)),
        f"{_IF}.16": ("Counter32", outgoing),
        f"{_IF}.17": ("Counter32", lambda t: outgoing(t) // _PACKET_BYTES),
        f"{_IF}.19": ("Counter32", _count(port.out_rate / 5e7, 41, chance)),
        f"{_IF}.20": ("Counter32", 0),
        f"{_IFX}.1": ("OctetString", port.name),
        f"{_IFX}.6": ("Counter64", incoming),
        f"{_IFX}.7": ("Counter64", lambda t: incoming(t) // _PACKET_BYTES),
        f"{_IFX}.10": ("Counter64", outgoing),
        f"{_IFX}.11": ("Counter64", lambda t: outgoing(t) // _PACKET_BYTES),
        f"{_IFX}.15": ("Gauge32", port.speed_bps // 10**6),
        f"{_IFX}.18": ("OctetString", port.alias),
    }


def _host_resources(chance: random.Random) -> Objects:
    objects: dict[str, tuple[str, ObjectValue]] = {
        f"{_HOST}.1.1.0": ("TimeTicks", lambda t: int((t + 12 * 86_400) * 100)),
        f"{_HOST}.1.6.0": ("Gauge32", _wave(212, 9, 40, chance)),
        f"{_HOST}.2.2.0": ("Integer32", 16 * 2**20),
    }
    # name, hrStorageTypes sub-id (2 RAM, 4 fixed disk), allocation unit in bytes, size, mean used
    storages = (("Physical memory", 2, 1024, 16 * 2**20, 9 * 2**20), ("/", 4, 4096, 12_500_000, 7_100_000))
    for index, (name, kind, unit, size, used) in enumerate(storages, start=1):
        columns: Sequence[tuple[str, ObjectValue]] = (
            ("Integer32", index),
            ("ObjectIdentifier", f"{_HOST}.2.1.{kind}"),
            ("OctetString", name),
            ("Integer32", unit),
            ("Integer32", size),
            ("Integer32", _wave(used, used // 20, 130, chance)),
        )
        for column, entry in enumerate(columns, start=1):
            objects[f"{_HOST}.2.3.1.{column}.{index}"] = entry
    for processor in (196_608, 196_609):
        objects[f"{_HOST}.3.3.1.1.{processor}"] = ("ObjectIdentifier", "0.0")
        objects[f"{_HOST}.3.3.1.2.{processor}"] = ("Integer32", _wave(38, 30, 50, chance))
    return objects


def _count(rate: float, period: float, chance: random.Random, start: int = 0) -> Callable[[float], int]:
    """The integral of rate · (1 + 0.6 · sin(2π t / period + phase)): a counter that never goes back."""
    phase, depth = chance.uniform(0, 2 * math.pi), 0.6 * rate * period / (2 * math.pi)
    return lambda t: start + int(rate * t + depth * (math.cos(phase) - math.cos(2 * math.pi * t / period + phase)))


def _wave(mean: int, swing: int, period: float, chance: random.Random) -> Callable[[float], int]:
    phase = chance.uniform(0, 2 * math.pi)
    return lambda t: mean + round(swing * math.sin(2 * math.pi * t / period + phase))


def _outage(t: float) -> float | None:
    """Seconds since the mains failed; None while they are there."""
    seconds = t % _UPS_OUTAGE_EVERY - _UPS_OUTAGE_FROM
    return seconds if 0 <= seconds < _UPS_OUTAGE_FOR else None
