"""make bench-snmp: our SNMP poller beside net-snmp's snmpbulkwalk and pysnmp, and against thousands of agents.

A section returns figures for the closing line; the order of ``SECTIONS`` is theirs.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pysnmp.hlapi.v3arch.asyncio import (
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    UdpTransportTarget,
    get_cmd,
)

from benchmarks import snmp_traps
from benchmarks.snmp_fuzz import fuzz
from benchmarks.snmp_rates import rates
from benchmarks.snmp_scale import scale
from resources.snmp import MAX_REPETITIONS, SnmpSession
from tests.resources.snmpd import snmpd
from tests.services import require_binary

ROOT = "1.3.6.1.2.1"
OIDS = [f"1.3.6.1.2.1.1.{n}.0" for n in range(1, 7)]
TARGETS = 20
ROUNDS = 7

Figures = dict[str, str]


def walk(options: argparse.Namespace) -> Figures:
    """A bulk walk of a real agent, ours and the tool's in turns; the tool's start is taken off its time."""
    with tempfile.TemporaryDirectory() as folder, snmpd(Path(folder)) as port:
        ratios, defaults, ours = [], [], []
        for _ in range(ROUNDS):
            start = _tool("snmpget", port, "1.3.6.1.2.1.1.3.0")[1]
            rate = asyncio.run(_walk(port))
            lines, seconds = _tool("snmpbulkwalk", port, ROOT, f"-Cr{MAX_REPETITIONS}")
            ratios.append(rate / (lines / (seconds - start)))
            lines, seconds = _tool("snmpbulkwalk", port, ROOT)
            defaults.append(rate / (lines / (seconds - start)))
            ours.append(rate)
    print(
        f"walk: {statistics.median(ours):.0f} varbinds/s, {statistics.median(ratios):.2f} times snmpbulkwalk with "
        f"max-repetitions {MAX_REPETITIONS}, {statistics.median(defaults):.2f} times with its default of 10"
    )
    return {"walk_ratio": f"{statistics.median(ratios):.2f}"}


async def _walk(port: int) -> float:
    session = SnmpSession("127.0.0.1", port)
    began = time.perf_counter()
    answer = await session.walk(ROOT)
    seconds = time.perf_counter() - began
    session.close()
    assert answer.error is None, answer.error
    return len(answer.varbinds) / seconds


def _tool(name: str, port: int, oid: str, *more: str) -> tuple[int, float]:
    command = [require_binary(name), "-v2c", "-c", "public", "-On", *more, f"127.0.0.1:{port}", oid]
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "MIBS": ""}, capture_output=True, text=True, check=True)
    return done.stdout.count("\n"), time.perf_counter() - began


def gets(options: argparse.Namespace) -> Figures:
    """GETs of six objects from one agent, 20 targets at once: ours, then pysnmp's."""
    with tempfile.TemporaryDirectory() as folder, snmpd(Path(folder)) as port:
        ours = asyncio.run(_gets(port, options.seconds))
        peer = asyncio.run(_pysnmp_gets(port, options.seconds))
    print(f"gets: {ours:.0f} PDUs/s from {TARGETS} targets at once, pysnmp {peer:.0f}")
    return {"get_vs_pysnmp": f"{ours / peer:.1f}"}


async def _gets(port: int, seconds: float) -> float:
    sessions = [SnmpSession("127.0.0.1", port) for _ in range(TARGETS)]
    ended = time.perf_counter() + seconds

    async def poll(session: SnmpSession) -> int:
        count = 0
        while time.perf_counter() < ended:
            answer = await session.get(OIDS)
            assert len(answer.varbinds) == len(OIDS), answer.error
            count += 1
        session.close()
        return count

    return sum(await asyncio.gather(*map(poll, sessions))) / seconds


async def _pysnmp_gets(port: int, seconds: float) -> float:
    engine, objects = SnmpEngine(), [ObjectType(ObjectIdentity(oid)) for oid in OIDS]
    ended = time.perf_counter() + seconds

    async def poll() -> int:
        target, count = await UdpTransportTarget.create(("127.0.0.1", port)), 0
        while time.perf_counter() < ended:
            error, status, _, found = await get_cmd(engine, CommunityData("public"), target, ContextData(), *objects)
            assert not error and not status and len(found) == len(OIDS), error
            count += 1
        return count

    total = sum(await asyncio.gather(*(poll() for _ in range(TARGETS))))
    engine.close_dispatcher()
    return total / seconds


def polls(options: argparse.Namespace) -> Figures:
    """See ``benchmarks.snmp_scale``."""
    return scale(options.targets, options.cycles)


SECTIONS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "walk": walk,
    "gets": gets,
    "polls": polls,
    "traps": lambda options: snmp_traps.traps(options.traps),
    "informs": lambda options: snmp_traps.informs(options.informs),
    "decode": lambda options: snmp_traps.decode(options.varbinds),
    "rates": lambda options: rates(options.polled, options.history),
    "fuzz": lambda options: fuzz(options.datagrams, options.answers),
}


def main() -> None:
    """Prints a line or two a section, and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sections", default=",".join(SECTIONS), help="which ones, with commas between")
    options.add_argument("--targets", type=int, default=3000)
    options.add_argument("--cycles", type=int, default=6)
    options.add_argument("--seconds", type=float, default=5, help="how long GETs are sent")
    options.add_argument("--traps", type=int, default=60_000)
    options.add_argument("--informs", type=int, default=500)
    options.add_argument("--varbinds", type=int, default=600_000)
    options.add_argument("--polled", type=int, default=3000, help="targets whose counters are judged")
    options.add_argument("--history", type=int, default=72, help="cycles of 10 s before the measured ones")
    options.add_argument("--datagrams", type=int, default=1_000_000, help="mutated traps")
    options.add_argument("--answers", type=int, default=100_000, help="mutated answers to the poller")
    chosen = options.parse_args()
    figures: Figures = {}
    for section in chosen.sections.split(","):
        figures |= SECTIONS[section](chosen)
    print("snmp: " + " ".join(f"{name}={value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
