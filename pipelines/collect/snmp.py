"""The SNMP collector: polls every target at its own pace and lands the varbinds as they were answered."""

import asyncio
import logging
import math
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.collect.group_commit import GroupCommit
from pipelines.settings.snmp import SnmpAuth, SnmpConfig, SnmpModule, SnmpTarget
from resources.snmp import Answer, SnmpSession

logger = logging.getLogger(__name__)

SOURCE = "snmp_varbinds"
RECORD = pa.schema(
    [
        pa.field("target", pa.string()),
        pa.field("poll_id", pa.string()),
        pa.field("request_id", pa.int64()),
        pa.field("oid", pa.string()),
        pa.field("wire_type", pa.string()),
        pa.field("value", pa.binary()),
        pa.field("received_at", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass
class SnmpStatus:
    """Counters of one target. ``failing`` names the modules whose last poll failed, ``skipped`` counts missed slots."""

    polls: int = 0
    answered: int = 0
    failed: int = 0
    timeouts: int = 0
    skipped: int = 0
    varbinds: int = 0
    failing: list[str] = field(default_factory=list)
    last_error: str | None = None
    last_seconds: float | None = None


@dataclass
class PollClock:
    """Slots at ``first + n * interval`` on a monotonic clock (seconds); the length of a poll does not shift them."""

    first: float
    interval: float
    slot: int = 0

    @property
    def due(self) -> float:
        """When the slot begins."""
        return self.first + self.slot * self.interval

    def advance(self, now: float) -> int:
        """Moves to the first later slot that is not past; returns how many were missed."""
        following = max(self.slot + 1, math.ceil((now - self.first) / self.interval))
        missed = following - self.slot - 1
        self.slot = following
        return missed


def phase(target: str, module: str) -> float:
    """Where in its interval a module of a target is polled, from 0 to below 1; the same after a restart."""
    return zlib.crc32(f"{target} {module}".encode()) / 2**32


@dataclass
class _Poller:
    """Polls one module of one target, one poll at a time."""

    target: str
    name: str
    module: SnmpModule
    session: SnmpSession
    status: SnmpStatus
    landing: GroupCommit
    report: Callable[[str, SnmpStatus], None] | None

    async def run(self, stop: asyncio.Event) -> None:
        now = asyncio.get_running_loop().time
        interval = self.module.interval.total_seconds()
        clock = PollClock(now() + phase(self.target, self.name) * interval, interval)
        while await _pause(stop, clock.due - now()) and await _writable(self.landing, stop):
            began = now()
            answers = await self._ask()
            self.status.last_seconds = round(now() - began, 6)
            self._land(answers)
            self._note(answers, stop.is_set())
            self.status.skipped += clock.advance(now())

    async def _ask(self) -> list[Answer]:
        answers: list[Answer] = []
        if self.module.get:
            answers.append(await self.session.get(self.module.get))
        for root in self.module.walk:
            if answers and answers[-1].timed_out:
                break
            answers.append(await self.session.walk(root))
        return answers

    def _land(self, answers: Sequence[Answer]) -> None:
        poll_id = str(uuid.uuid4())
        for answer in answers:
            for oid, wire_type, value, request_id, received_at_us in answer.varbinds:
                self.landing.put((self.target, poll_id, request_id, oid, wire_type, value, received_at_us))
            self.status.varbinds += len(answer.varbinds)

    def _note(self, answers: Sequence[Answer], is_stopping: bool) -> None:
        error = next((answer.error for answer in answers if answer.error), None)
        status, was_failing = self.status, self.name in self.status.failing
        status.polls += 1
        status.timeouts += sum(answer.timed_out for answer in answers)
        if error:
            status.failed += 1
            status.last_error = str(error)
            if not was_failing and not is_stopping:
                status.failing.append(self.name)
                logger.warning("%s; module %s is tried again every %s", error, self.name, self.module.interval)
        else:
            status.answered += 1
            if was_failing:
                status.failing.remove(self.name)
                logger.warning("target %s: module %s answers again", self.target, self.name)
        if self.report:
            self.report(self.target, status)


class SnmpCollector:
    """Polls the targets of ``[snmp]`` until it is stopped.

    ``status``, where given, is called with a target's name and counters after each of its polls.
    """

    def __init__(
        self,
        config: SnmpConfig,
        landing: GroupCommit,
        status: Callable[[str, SnmpStatus], None] | None = None,
    ) -> None:
        self._config, self._landing = config, landing
        self._status: dict[str, SnmpStatus] = {}
        self._sessions: list[SnmpSession] = []
        self._pollers: list[_Poller] = []
        for target in config.targets:
            session = _session(target, config.auths[target.auth])
            counters = self._status.setdefault(target.device_id, SnmpStatus())
            self._sessions.append(session)
            for name in dict.fromkeys(target.modules):
                module = config.modules[name]
                self._pollers.append(_Poller(target.device_id, name, module, session, counters, landing, status))

    async def run(self, stop: asyncio.Event) -> None:
        """Polls until ``stop`` is set; polls in flight then have the time of one request's tries to end, and land."""
        try:
            async with asyncio.TaskGroup() as group:
                polling = [group.create_task(poller.run(stop)) for poller in self._pollers]
                await stop.wait()
                if polling:
                    await asyncio.wait(polling, timeout=self._grace())
                self._close()
        finally:
            self._close()
        await self._landing.flush()

    async def reload(self, section: SnmpConfig) -> bool:
        """Whether it can go on with this configuration; a changed one needs a new start."""
        return section == self._config

    def status(self) -> dict[str, Any]:
        """The counters of each target, as JSON takes them."""
        return {target: asdict(counters) for target, counters in self._status.items()}

    def _grace(self) -> float:
        return max(session.timeout_s * (session.retries + 1) for session in self._sessions)

    def _close(self) -> None:
        for session in self._sessions:
            session.close()


def _session(target: SnmpTarget, auth: SnmpAuth) -> SnmpSession:
    community = auth.community.reveal() if auth.community else "public"
    seconds = target.timeout.total_seconds()
    return SnmpSession(target.host, target.port, auth.version, community, seconds, target.retries)


async def _pause(stop: asyncio.Event, seconds: float) -> bool:
    """Waits; returns False at once when ``stop`` is set."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await stop.wait()
    except TimeoutError:
        return not stop.is_set()
    return False


async def _writable(landing: GroupCommit, stop: asyncio.Event) -> bool:
    """Waits until landing takes records; returns False when ``stop`` is set before."""
    if landing.is_writable:
        return True
    waits = [asyncio.ensure_future(landing.wait_writable()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return not stop.is_set()
