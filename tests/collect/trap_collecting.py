"""A running trap collector, and net-snmp's senders."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.snmp_traps import RECORD, SOURCE, TrapCollector, TrapSection
from pipelines.settings.snmp_traps import SnmpTraps
from resources.landing import LandingLimits, LandingStream, read_segment, sealed_segments
from resources.snmp_usm import UsmUser
from tests.resources.snmpd import free_udp_port
from tests.services import require_binary

ALICE = UsmUser("alice", "SHA-256", "alice has a secret", "AES-128", "alice has another")
BOB = UsmUser("bob", "MD5", "bob has a secret", "DES", "bob has another")
CAROL = UsmUser("carol", "SHA-512", "carol has a secret")
DAVE = UsmUser("dave")
USERS = {user.name: [user] for user in (ALICE, BOB, CAROL, DAVE)}
LINK_DOWN, IF_INDEX = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.2.1.2.2.1.1.7"
_ENGINE = "0x80001f8880aabbccdd"


def user_options(user: UsmUser) -> list[str]:
    """How net-snmp's tools name a user."""
    level = "authPriv" if user.priv_protocol else "authNoPriv" if user.auth_protocol else "noAuthNoPriv"
    options = ["-v3", "-u", user.name, "-l", level]
    if user.auth_protocol:
        options += ["-a", user.auth_protocol, "-A", user.auth_password]
    if user.priv_protocol:
        options += ["-x", user.priv_protocol.partition("-")[0], "-X", user.priv_password]
    return options


@dataclass
class Listening:
    """A collector on a port, whose landing is in ``root``."""

    collector: TrapCollector
    landing: GroupCommit
    port: int
    root: Path

    async def send(
        self, tool: str, options: Sequence[str], *rest: str, to: str = "127.0.0.1"
    ) -> subprocess.CompletedProcess[str]:
        """Runs snmptrap or snmpinform; the second tells by its exit code whether it was answered."""
        extra = ["-e", _ENGINE] if "-v3" in options and "-e" not in options and tool == "snmptrap" else []
        arguments = [require_binary(tool), *options, *extra, "-t", "1", "-r", "2", f"{to}:{self.port}", *rest]
        environment = {**os.environ, "MIBS": "", "SNMP_PERSISTENT_DIR": str(self.root)}
        return await asyncio.to_thread(
            subprocess.run, arguments, env=environment, capture_output=True, text=True, timeout=60
        )

    async def landed(self, count: int) -> None:
        """Waits until so many datagrams are durable."""
        async with asyncio.timeout(30):
            while self.landing.durable < count:
                await asyncio.sleep(0.01)

    @property
    def counters(self) -> dict[str, Any]:
        return self.collector.status()


@asynccontextmanager
async def listening(root: Path, users: Any = None, **options: Any) -> AsyncIterator[Listening]:
    """Runs a collector; when it ends, what came is in sealed segments."""
    port = free_udp_port()
    stream = LandingStream(root / "landing", SOURCE, "traps", RECORD, LandingLimits())
    landing = GroupCommit(stream, 0.005)
    config = SnmpTraps.model_validate({"port": port, **options})
    collector = TrapCollector(TrapSection(config, USERS if users is None else users, root / "engine.json"), landing)
    stop = asyncio.Event()
    committing, running = asyncio.create_task(landing.run()), asyncio.create_task(collector.run(stop))
    try:
        async with asyncio.timeout(30):
            while collector.status()["dropped_kernel"] is None and not running.done():
                await asyncio.sleep(0.005)
        yield Listening(collector, landing, port, root)
    finally:
        stop.set()
        await running
        committing.cancel()
        await landing.aclose()


def datagrams(root: Path) -> pl.DataFrame:
    """What was landed, as rows of the bronze table."""
    frames = []
    for segment in sealed_segments(root / "landing", SOURCE):
        frame = pl.DataFrame(read_segment(segment.path)[0])
        place = {"stream": pl.lit(segment.stream), "sequence": pl.lit(segment.sequence, pl.Int64)}
        frames.append(frame.with_columns(**place, row=pl.int_range(pl.len(), dtype=pl.Int32)))
    return pl.concat(frames)
