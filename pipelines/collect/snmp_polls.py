"""One module of one SNMP target, polled at its own pace: the varbinds land, and beside them how the poll went."""

import asyncio
import logging
import math
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.collect.group_commit import GroupCommit
from pipelines.settings.snmp_module import SnmpModule
from resources.durations import spelled
from resources.snmp import Answer, SnmpSession, Traffic

logger = logging.getLogger(__name__)

SOURCE = "snmp_polls"
RECORD = pa.schema(
    [
        pa.field("target", pa.string()),
        pa.field("module", pa.string()),
        pa.field("poll_id", pa.string()),
        pa.field("is_up", pa.bool_()),
        pa.field("duration_seconds", pa.float64()),
        pa.field("pdus", pa.int32()),
        pa.field("retries", pa.int32()),
        pa.field("timeouts", pa.int32()),
        pa.field("varbinds", pa.int32()),
        pa.field("missed", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
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

    @classmethod
    def spread(cls, target: str, module: str, interval: float, now: float) -> "PollClock":
        """Slots on a grid that every start finds again, so that a reload loses none of them."""
        offset = phase(target, module) * interval
        return cls(offset + math.ceil((now - offset) / interval) * interval, interval)

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
class Reach:
    """Whether a target answers. One that does not is asked at growing intervals, up to ``longest`` seconds."""

    longest: float
    until: float = -math.inf
    silent: int = 0

    def note(self, began: float, interval: float, *, is_up: bool) -> None:
        """Takes over how a poll that began at ``began`` went."""
        if is_up:
            self.silent, self.until = 0, -math.inf
        else:
            pause = min(interval * 2.0 ** min(self.silent, 30), max(self.longest, interval))
            self.silent, self.until = self.silent + 1, max(self.until, began + pause)


@dataclass(frozen=True)
class Landings:
    """Where varbinds and the rows about polls go."""

    varbinds: GroupCommit
    polls: GroupCommit


@dataclass
class Poller:
    """Polls one module of one target, one poll at a time."""

    target: str
    name: str
    module: SnmpModule
    session: SnmpSession
    status: SnmpStatus
    reach: Reach
    landings: Landings
    report: Callable[[str, SnmpStatus], None] | None
    _missed: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Polls at each slot until ``stop``."""
        async for _ in self.polls(stop):
            pass

    async def polls(self, stop: asyncio.Event) -> AsyncIterator[Sequence[Answer]]:
        """Polls at each slot until ``stop``, and gives what each poll brought once it has landed."""
        now = asyncio.get_running_loop().time
        interval = self.module.interval.total_seconds()
        clock = PollClock.spread(self.target, self.name, interval, now())
        while await pause(stop, clock.due - now()) and await _writable(self.landings, stop):
            began = now()
            if began < self.reach.until - interval / 2:
                clock.advance(began)  # held back, not missed
                continue
            yield await self._poll(began, interval, stop)
            self._missed = clock.advance(now())
            self.status.skipped += self._missed

    async def _poll(self, began: float, interval: float, stop: asyncio.Event) -> Sequence[Answer]:
        started_at_us = time.time_ns() // 1000
        answers = await self._ask()
        self.status.last_seconds = round(asyncio.get_running_loop().time() - began, 6)
        traffic = Traffic()
        for answer in answers:
            traffic.add(answer.traffic)
        is_up = traffic.pdus > traffic.timeouts
        self.reach.note(began, interval, is_up=is_up)
        self._land(answers, traffic, started_at_us, is_up=is_up)
        self._note(answers, stop.is_set())
        return answers

    async def _ask(self) -> list[Answer]:
        answers: list[Answer] = []
        if self.module.get:
            answers.append(await self.session.get(self.module.get))
        for root in self.module.walk:
            if answers and answers[-1].timed_out:
                break
            answers.append(await self.session.walk(root))
        return answers

    def _land(self, answers: Sequence[Answer], traffic: Traffic, started_at_us: int, *, is_up: bool) -> None:
        poll_id = str(uuid.uuid4())
        target = self.target
        records = [
            (target, poll_id, request_id, oid, wire_type, value, received_at_us)
            for answer in answers
            for oid, wire_type, value, request_id, received_at_us in answer.varbinds
        ]
        if records:
            self.landings.varbinds.put_all(list(zip(*records, strict=True)))
        varbinds = len(records)
        self.status.varbinds += varbinds
        cost = (self.status.last_seconds, traffic.pdus, traffic.retries, traffic.timeouts, varbinds, self._missed)
        error = "; ".join(str(answer.error) for answer in answers if answer.error) or None
        times = (started_at_us, time.time_ns() // 1000)
        self.landings.polls.put((target, self.name, poll_id, is_up, *cost, error, *times))

    def _note(self, answers: Sequence[Answer], is_stopping: bool) -> None:
        error = next((answer.error for answer in answers if answer.error), None)
        if error and is_stopping:
            return  # the stop cut it short: it says nothing of the target
        status, was_failing = self.status, self.name in self.status.failing
        status.polls += 1
        status.timeouts += sum(answer.timed_out for answer in answers)
        if error:
            status.failed += 1
            status.last_error = str(error)
            if not was_failing:
                status.failing.append(self.name)
                logger.warning("%s; module %s is tried again every %s", error, self.name, spelled(self.module.interval))
        else:
            status.answered += 1
            if was_failing:
                status.failing.remove(self.name)
                logger.warning("target %s: module %s answers again", self.target, self.name)
        if self.report:
            self.report(self.target, status)


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Waits; returns False at once when ``stop`` is set."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await stop.wait()
    except TimeoutError:
        return not stop.is_set()
    return False


async def _writable(landings: Landings, stop: asyncio.Event) -> bool:
    """Waits until landing takes records; returns False when ``stop`` is set before."""
    for landing in (landings.varbinds, landings.polls):
        if landing.is_writable:
            continue
        waits = [asyncio.ensure_future(landing.wait_writable()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
    return not stop.is_set()
