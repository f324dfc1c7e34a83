"""The collector process: every configured collector, their landing streams, and the status file."""

import asyncio
import json
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from pipelines.collect import mqtt, snmp, snmp_polls, snmp_traps
from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.instances import Instance, part_of
from pipelines.config import Config
from resources.errors import ConfigurationError, SecchiError
from resources.landing import LandingLimits, LandingStream

logger = logging.getLogger(__name__)

_STATUS_SECONDS, _STATUS_MOST_SECONDS = 1.0, 5.0
_MANY_FILES = 65_536
_RESTART_MIN, _RESTART_MAX = 1.0, 60.0
_MQTT, _SNMP, _TRAPS = "mqtt collector ", "snmp collector", "snmp trap collector"


def run_collectors(load: Callable[[], Config], name: str = "") -> int:
    """Collects until SIGTERM or SIGINT, taking the configuration anew at each SIGHUP; returns the exit code.

    Raises:
        ConfigurationError: see ``part_of`` and ``collect``.
    """
    # Each agent and broker has a socket of its own; the usual limit is 1,024 of them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if most == resource.RLIM_INFINITY else most
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    asyncio.run(_collect_until_signalled(load, name))
    return 0


async def _collect_until_signalled(load: Callable[[], Config], name: str) -> None:
    def own_part() -> Config:
        return part_of(load(), name)

    stop, reload, loop = asyncio.Event(), Reload(own_part), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.request)
    await collect(own_part(), stop, reload, name)


class Reload:
    """Requests to take the configuration anew; ``load`` reads it."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Asks for it; a second time before it has begun is the same request."""
        self._requested.set()

    async def next(self) -> Config:
        """Waits for a request, and returns the configuration once there is one without a mistake."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                return await asyncio.to_thread(self._load)
            except ConfigurationError as error:
                logger.error("the configuration is not taken anew, collecting goes on as before: %s", error)


async def collect(config: Config, stop: asyncio.Event, reload: Reload | None = None, name: str = "") -> None:
    """Runs every configured collector until ``stop``; then what came is committed, acknowledged and sealed.

    Raises:
        ConfigurationError: nothing is configured, the lakehouse cannot be written, or another process collects as the
            instance of this name.
    """
    if not config.has_sources:
        raise ConfigurationError(
            "nothing to collect: the configuration has no [[mqtt]], [[snmp.targets]], [snmp_traps]"
        )
    instance = Instance(config.lakehouse.path, name)
    with instance.held():
        await _Collectors(config, instance).run(stop, reload)


async def _supervise(name: str, run: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Runs ``run`` until it returns; one that fails is started again with back-off, apart from all others."""
    pause, reported = _RESTART_MIN, ""
    while not stop.is_set():
        began = time.monotonic()
        try:
            return await run()
        except SecchiError as error:
            if str(error) != reported:
                logger.error("%s: %s; it is tried again", name, error)
            reported = str(error)
        except Exception:
            # The process boundary: a fault in one collector does not end the others.
            if time.monotonic() - began > _RESTART_MAX:
                pause = _RESTART_MIN
            logger.exception("%s failed; starting it again in %g s", name, pause)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
        pause = min(_RESTART_MAX, 2 * pause)


class _Collector(Protocol):
    async def run(self, stop: asyncio.Event) -> None: ...

    async def reload(self, section: Any) -> bool:
        """Takes over its changed section of the configuration; False where only a new start can."""

    def status(self) -> dict[str, Any]: ...


class _Landed(NamedTuple):
    """A source that a collector lands in."""

    source: str
    collector: str
    record: pa.Schema


class _Wanted(NamedTuple):
    """A collector that a configuration asks for; ``make`` takes its section and a landing for each source."""

    name: str
    section: Any
    landed: tuple[_Landed, ...]
    make: Callable[..., _Collector]


def _wanted(config: Config, folder: Path) -> Iterator[_Wanted]:
    messages = _Landed(mqtt.SOURCE, "mqtt", mqtt.RECORD)
    for broker in config.mqtt:
        make = partial(mqtt.MqttCollector, folder=folder)
        yield _Wanted(_MQTT + broker.name, broker, (messages,), make)
    if config.snmp.targets:
        varbinds = _Landed(snmp.SOURCE, "snmp", snmp.RECORD)
        polls = _Landed(snmp_polls.SOURCE, "snmp", snmp_polls.RECORD)
        yield _Wanted(_SNMP, config.snmp, (varbinds, polls), snmp.SnmpCollector)
    if config.snmp_traps:
        section = snmp_traps.TrapSection(config.snmp_traps, config.trap_users, folder / "snmp_engine.json")
        datagrams = _Landed(snmp_traps.SOURCE, "traps", snmp_traps.RECORD)
        yield _Wanted(_TRAPS, section, (datagrams,), snmp_traps.TrapCollector)


@dataclass
class _Running:
    """A collector, and the task that keeps it running until its own ``stop``; none while it cannot be made."""

    wanted: _Wanted
    collector: _Collector | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """Lets it bring what came to an end."""
        self.stop.set()
        if self.task:
            await asyncio.wait([self.task])


class _Collectors:
    """The collectors of one configuration, each apart from the others, and one landing stream a source."""

    def __init__(self, config: Config, instance: Instance) -> None:
        self._config, self._instance = config, instance
        self._started_at = datetime.now(UTC)
        self._is_status_failing = False
        self._status_lock = threading.Lock()
        self._landings: dict[str, GroupCommit] = {}
        self._serving: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()
        self._never = asyncio.Event()
        self._running = {wanted.name: _Running(wanted) for wanted in _wanted(config, instance.folder)}

    def _make(self, wanted: _Wanted) -> _Collector:
        return wanted.make(wanted.section, *(self._landing(landed) for landed in wanted.landed))

    def _landing(self, landed: _Landed) -> GroupCommit:
        if landed.source in self._landings:
            return self._landings[landed.source]
        config, root = self._config.landing, self._config.landing_path
        limits = LandingLimits(config.segment_bytes, config.segment_age.total_seconds(), config.capacity_bytes)
        try:
            stream = LandingStream(root, landed.source, landed.collector, landed.record, limits)
        except OSError as error:
            where = root / landed.source
            raise ConfigurationError(f"lakehouse.path: cannot write {where}: {error.strerror}") from error
        self._landings[landed.source] = GroupCommit(stream, config.commit_interval.total_seconds())
        return self._landings[landed.source]

    async def run(self, stop: asyncio.Event, reload: Reload | None) -> None:
        """Runs until ``stop``, and a moment longer to bring what came to an end."""
        for running in self._running.values():
            self._start(running)
        self._serve("status file", self._keep_status)
        reloading = asyncio.create_task(self._keep_reloading(reload)) if reload else None
        try:
            await stop.wait()
            async with self._changing:
                if reloading:
                    reloading.cancel()
                await asyncio.gather(*(running.end() for running in self._running.values()))
        finally:
            collecting = [running.task for running in self._running.values() if running.task]
            for task in (*collecting, *self._serving):
                task.cancel()
            await asyncio.gather(*collecting, *self._serving, return_exceptions=True)
            for landing in self._landings.values():
                await landing.aclose()
            self._write_status(self._status())

    def _serve(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._serving.append(asyncio.create_task(_supervise(name, run, self._never), name=name))

    def _serve_landings(self) -> None:
        """Starts the group commits of the sources that have none running."""
        served = {task.get_name() for task in self._serving}
        for source, landing in self._landings.items():
            if (name := f"landing of {source}") not in served:
                self._serve(name, landing.run)

    def _start(self, running: _Running) -> None:
        run = partial(self._run_collector, running)
        running.task = asyncio.create_task(_supervise(running.wanted.name, run, running.stop))

    async def _run_collector(self, running: _Running) -> None:
        # What is left of one that failed is not known.
        running.collector = self._make(running.wanted)
        self._serve_landings()
        await running.collector.run(running.stop)

    async def _keep_reloading(self, reload: Reload) -> None:
        while True:
            config = await reload.next()
            async with self._changing:
                await self._take_over(config)

    async def _take_over(self, config: Config) -> None:
        """Starts, changes and ends collectors until they are those of ``config``; the others do not notice."""
        if (config.lakehouse, config.landing) != (self._config.lakehouse, self._config.landing):
            logger.warning("a change of [lakehouse] or [landing] takes effect when the collectors are started again")
        wanted = {each.name: each for each in _wanted(config, self._instance.folder)}
        for name in self._running.keys() - wanted.keys():
            await self._running[name].end()
            del self._running[name]
            logger.info("%s: ended, it is no longer in the configuration", name)
        for name, each in wanted.items():
            await self._change(self._running.get(name), each)
        logger.info("the configuration was taken over")

    async def _change(self, running: _Running | None, wanted: _Wanted) -> None:
        if running:
            if running.collector and await running.collector.reload(wanted.section):
                running.wanted = wanted
                return
            await running.end()
        self._running[wanted.name] = _Running(wanted)
        self._start(self._running[wanted.name])
        logger.info("%s: %s", wanted.name, "started again with its changed configuration" if running else "started")

    def _status(self) -> dict[str, Any]:
        made = {name: running.collector for name, running in self._running.items() if running.collector}
        collectors = {name: collector.status() for name, collector in made.items()}
        return {
            "pid": os.getpid(),
            "started_at": self._started_at.isoformat(),
            "updated_at": datetime.now(UTC).isoformat(),
            "mqtt": {n.removeprefix(_MQTT): status for n, status in collectors.items() if n.startswith(_MQTT)},
            "snmp": collectors.get(_SNMP, {}),
            "snmp_traps": collectors.get(_TRAPS, {}),
            "landing": {source: landing.status() for source, landing in self._landings.items()},
        }

    async def _keep_status(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.to_thread(self._write_status, self._status())
            # With thousands of targets it is a large file, which must not cost more than a few percent of the time.
            await asyncio.sleep(min(_STATUS_MOST_SECONDS, max(_STATUS_SECONDS, 50 * (time.monotonic() - began))))

    def _write_status(self, status: dict[str, Any]) -> None:
        path = self._instance.status_path
        draft = path.with_suffix(".new")
        try:
            with self._status_lock:
                draft.write_text(json.dumps(status))
                draft.replace(path)
            self._is_status_failing = False
        except OSError as error:
            if not self._is_status_failing:
                logger.error("status file %s: %s", path, error.strerror)
            self._is_status_failing = True
