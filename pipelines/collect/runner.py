"""The collector process: every configured collector, their landing streams, and the status file."""

import asyncio
import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from pipelines.collect import mqtt, snmp
from pipelines.collect.group_commit import GroupCommit
from pipelines.config import Config
from resources.errors import ConfigurationError
from resources.landing import LandingLimits, LandingStream

logger = logging.getLogger(__name__)

_STATUS_SECONDS = 1.0
_RESTART_MIN, _RESTART_MAX = 1.0, 60.0
_MQTT, _SNMP = "mqtt collector ", "snmp collector"


def status_path(lakehouse: Path) -> Path:
    """The status file of the process that collects for a lakehouse; it is written every second."""
    return lakehouse / "status" / "collectors.json"


def run_collectors(config: Config) -> int:
    """Collects until SIGTERM or SIGINT; returns the exit code.

    Raises:
        ConfigurationError: see ``collect``.
    """
    asyncio.run(_collect_until_signalled(config))
    return 0


async def _collect_until_signalled(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await collect(config, stop)


async def collect(config: Config, stop: asyncio.Event) -> None:
    """Runs every configured collector until ``stop``; then what came is committed, acknowledged and sealed.

    Raises:
        ConfigurationError: nothing is configured, the lakehouse cannot be written, or another process collects for it.
    """
    if not config.mqtt and not config.snmp.targets:
        raise ConfigurationError("nothing to collect: the configuration has neither [[mqtt]] nor [[snmp.targets]]")
    with _sole_collector(config.lakehouse.path):
        await _Collectors(config).run(stop)


@contextmanager
def _sole_collector(lakehouse: Path) -> Iterator[None]:
    """Holds the lock that says which process collects for a lakehouse."""
    path = lakehouse / "status" / "collectors.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigurationError(f"lakehouse.path: cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigurationError(
            f"lakehouse.path: another process collects for {lakehouse} ({path} is locked); stop it first"
        ) from error
    try:
        yield
    finally:
        os.close(lock)


async def _supervise(name: str, run: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Runs ``run`` until it returns; one that fails is started again with back-off, apart from all others."""
    pause = _RESTART_MIN
    while not stop.is_set():
        began = time.monotonic()
        try:
            return await run()
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

    def status(self) -> dict[str, Any]: ...


class _Collectors:
    """The collectors of one configuration, each apart from the others, and one landing stream a source."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._started_at = datetime.now(UTC)
        self._is_status_failing = False
        self._status_lock = threading.Lock()
        self._landings: dict[str, GroupCommit] = {}
        self._factories: dict[str, Callable[[], _Collector]] = {}
        if config.mqtt:
            landing = self._open_landing(mqtt.SOURCE, "mqtt", mqtt.RECORD)
            for broker in config.mqtt:
                self._factories[_MQTT + broker.name] = partial(mqtt.MqttCollector, broker, landing)
        if config.snmp.targets:
            landing = self._open_landing(snmp.SOURCE, "snmp", snmp.RECORD)
            self._factories[_SNMP] = partial(snmp.SnmpCollector, config.snmp, landing)
        self._collectors = {name: make() for name, make in self._factories.items()}
        self._ran: set[str] = set()

    def _open_landing(self, source: str, collector: str, schema: pa.Schema) -> GroupCommit:
        config, root = self._config.landing, self._config.landing_path
        limits = LandingLimits(config.segment_bytes, config.segment_age.total_seconds(), config.capacity_bytes)
        try:
            stream = LandingStream(root, source, collector, schema, limits)
        except OSError as error:
            raise ConfigurationError(f"lakehouse.path: cannot write {root / source}: {error.strerror}") from error
        self._landings[source] = GroupCommit(stream, config.commit_interval.total_seconds())
        return self._landings[source]

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until ``stop``, and a moment longer to bring what came to an end."""

        def start(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
            return asyncio.create_task(_supervise(name, run, stop))

        serving = [start(f"landing of {source}", landing.run) for source, landing in self._landings.items()]
        serving.append(start("status file", self._keep_status))
        collecting = [start(name, partial(self._run_collector, name, stop)) for name in self._collectors]
        try:
            await asyncio.gather(*collecting)
        finally:
            for task in (*collecting, *serving):
                task.cancel()
            await asyncio.gather(*collecting, *serving, return_exceptions=True)
            for landing in self._landings.values():
                await landing.aclose()
            self._write_status(self._status())

    async def _run_collector(self, name: str, stop: asyncio.Event) -> None:
        if name in self._ran:
            # What is left of one that failed is not known.
            self._collectors[name] = self._factories[name]()
        self._ran.add(name)
        await self._collectors[name].run(stop)

    def _status(self) -> dict[str, Any]:
        collectors = {name: collector.status() for name, collector in self._collectors.items()}
        return {
            "pid": os.getpid(),
            "started_at": self._started_at.isoformat(),
            "updated_at": datetime.now(UTC).isoformat(),
            "mqtt": {n.removeprefix(_MQTT): status for n, status in collectors.items() if n.startswith(_MQTT)},
            "snmp": collectors.get(_SNMP, {}),
            "landing": {source: landing.status() for source, landing in self._landings.items()},
        }

    async def _keep_status(self) -> None:
        while True:
            await asyncio.to_thread(self._write_status, self._status())
            await asyncio.sleep(_STATUS_SECONDS)

    def _write_status(self, status: dict[str, Any]) -> None:
        path = status_path(self._config.lakehouse.path)
        draft = path.with_suffix(".new")
        try:
            with self._status_lock:
                draft.write_text(json.dumps(status, indent=1))
                draft.replace(path)
            self._is_status_failing = False
        except OSError as error:
            if not self._is_status_failing:
                logger.error("status file %s: %s", path, error.strerror)
            self._is_status_failing = True
