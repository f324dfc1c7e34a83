"""The SNMP collector: polls every target at its own pace and lands the varbinds as they were answered."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pyarrow as pa

from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.snmp_polls import Landings, Poller, Reach, SnmpStatus
from pipelines.settings.snmp import SnmpAuth, SnmpConfig, SnmpTarget
from pipelines.settings.snmp_module import AUTO, SnmpModule
from resources.snmp import SnmpSession
from resources.snmp_ber import decode_oid

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
SYS_OBJECT_ID = "1.3.6.1.2.1.1.2.0"

_QUESTION = SnmpModule(get=[SYS_OBJECT_ID], interval=timedelta(seconds=5))

Report = Callable[[str, SnmpStatus], None]


@dataclass
class _Target:
    """One agent: its session, its pollers, and the task that runs them."""

    config: SnmpTarget
    session: SnmpSession
    modules: dict[str, SnmpModule]
    fitting: dict[str, SnmpModule]
    """What ``auto`` chooses from; empty where the modules are named."""
    status: SnmpStatus
    reach: Reach
    landings: Landings
    report: Report | None
    what: Any
    """All that it is made of; a target that has the same after a reload goes on."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def grace(self) -> float:
        """Seconds that a request under way may still take."""
        return self.session.timeout_s * (self.session.retries + 1)

    async def run(self) -> None:
        """Polls until ``stop``."""
        modules = dict(self.modules)
        if self.fitting:
            modules |= await self._fitting()
        async with asyncio.TaskGroup() as group:
            for name, module in modules.items():
                group.create_task(self._poller(name, module).run(self.stop))

    def _poller(self, name: str, module: SnmpModule) -> Poller:
        device = self.config.device_id
        return Poller(device, name, module, self.session, self.status, self.reach, self.landings, self.report)

    async def _fitting(self) -> dict[str, SnmpModule]:
        """The modules that fit the agent's sysObjectID, asked for until it is answered."""
        is_told = False
        async for answers in self._poller(AUTO, _QUESTION).polls(self.stop):
            for varbind in answers[0].varbinds:
                if varbind.wire_type == "ObjectIdentifier":
                    object_id = decode_oid(varbind.value)
                    fitting = {name: module for name, module in self.fitting.items() if module.fits(object_id)}
                    names = ", ".join([*self.modules, *fitting]) or "none"
                    logger.info("target %s: sysObjectID %s, modules %s", self.config.device_id, object_id, names)
                    return fitting
                if not is_told:
                    is_told = True
                    logger.warning("target %s: has no sysObjectID; name its modules", self.config.device_id)
        return {}

    async def end(self) -> None:
        """Lets polls under way come to an end, within the time of one request's tries, and land."""
        self.stop.set()
        if self.task:
            await asyncio.wait([self.task], timeout=self.grace)
            self.session.close()
            await asyncio.wait([self.task])


class SnmpCollector:
    """Polls the targets of ``[snmp]`` until it is stopped.

    ``report``, where given, is called with a target's name and counters after each of its polls.
    """

    def __init__(
        self, config: SnmpConfig, varbinds: GroupCommit, polls: GroupCommit, report: Report | None = None
    ) -> None:
        self._landings, self._report = Landings(varbinds, polls), report
        self._targets = {target.device_id: self._target(config, target) for target in config.targets}
        self._failure: asyncio.Future[None] | None = None

    def _target(self, config: SnmpConfig, target: SnmpTarget) -> _Target:
        auth = config.auths[target.auth]
        modules = {name: config.every_module[name] for name in dict.fromkeys(target.modules) if name != AUTO}
        fitting = {} if AUTO not in target.modules else config.every_module
        secrets = {name: secret.reveal() for name, secret in auth.secrets.items()}
        return _Target(
            target,
            session(target, auth),
            modules,
            {name: module for name, module in fitting.items() if name not in modules},
            SnmpStatus(),
            Reach(config.backoff.total_seconds()),
            self._landings,
            self._report,
            (target, auth, secrets, modules, fitting, config.backoff),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Polls until ``stop`` is set; polls in flight then have the time of one request's tries to end, and land."""
        self._failure = asyncio.get_running_loop().create_future()
        try:
            for target in self._targets.values():
                self._start(target)
            stopping = asyncio.ensure_future(stop.wait())
            waits: list[asyncio.Future[Any]] = [stopping, self._failure]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await asyncio.gather(*(target.end() for target in self._targets.values()))
            if self._failure.done():
                self._failure.result()
        finally:
            for target in self._targets.values():
                target.session.close()
                if target.task:
                    target.task.cancel()
        await self._landings.varbinds.flush()
        await self._landings.polls.flush()

    def _start(self, target: _Target) -> None:
        target.task = asyncio.create_task(target.run())
        target.task.add_done_callback(self._note_end)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error and self._failure and not self._failure.done():
            self._failure.set_exception(error)

    async def reload(self, section: SnmpConfig) -> bool:
        """Ends the targets that are gone, starts new ones, and changed ones again; the others go on undisturbed."""
        wanted = {target.device_id: self._target(section, target) for target in section.targets}
        gone = [n for n, target in self._targets.items() if n not in wanted or target.what != wanted[n].what]
        ended = [self._targets.pop(name) for name in gone]
        await asyncio.gather(*(target.end() for target in ended))
        for target in ended:
            if target.config.device_id in wanted:
                wanted[target.config.device_id].status = target.status
        started = wanted.keys() - self._targets.keys()
        for name in started:
            self._targets[name] = wanted[name]
            self._start(wanted[name])
        logger.info("snmp collector: %d targets, %d of them new or changed", len(wanted), len(started))
        return True

    def status(self) -> dict[str, Any]:
        """The counters of each target, as JSON takes them."""
        return {name: dict(vars(target.status)) for name, target in self._targets.items()}


def session(target: SnmpTarget, auth: SnmpAuth) -> SnmpSession:
    """A session with a target.

    Raises:
        ConfigurationError: a secret is not there.
    """
    return SnmpSession(
        target.host,
        target.port,
        auth.version,
        auth.community.reveal() if auth.community else "public",
        target.timeout.total_seconds(),
        target.retries,
        user=auth.usm_user(),
        context=target.context,
        max_repetitions=target.max_repetitions,
    )
