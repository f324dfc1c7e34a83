"""The trap collector: lands traps and INFORMs as datagrams, and answers INFORMs once they are durable."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.collect.group_commit import GroupCommit
from pipelines.settings.snmp_traps import SnmpTraps
from resources.errors import SourceUnavailableError
from resources.snmp_engine import SnmpEngine, open_engine
from resources.snmp_notification import INFORM, read_envelope, response_to
from resources.snmp_usm import UsmUser
from resources.udp_server import UdpServer

logger = logging.getLogger(__name__)

SOURCE = "snmp_traps"
RECORD = pa.schema(
    [
        pa.field("listener", pa.string()),
        pa.field("source_address", pa.string()),
        pa.field("source_port", pa.int32()),
        pa.field("datagram", pa.binary()),
        pa.field("received_at", pa.timestamp("us", tz="UTC")),
    ]
)

_MOST_SOURCES = 65_536
_BURST_SECONDS = 2.0
_LOG_EVERY = 60.0
_STATUS_SECONDS = 1.0


class TrapSection(NamedTuple):
    """What the collector is configured by; ``engine_path`` keeps the id that senders of v3 INFORMs discover."""

    config: SnmpTraps
    users: Mapping[str, Sequence[UsmUser]]
    engine_path: Path


@dataclass
class TrapStatus:
    """Counters: what came, what was landed and answered, and what was dropped for which reason."""

    received: int = 0
    landed: int = 0
    informs: int = 0
    answered: int = 0
    reports: int = 0
    dropped_source: int = 0
    dropped_rate: int = 0
    dropped_full: int = 0
    dropped_kernel: int | None = None
    last_error: str | None = None


@dataclass
class _Source:
    """One sender: whether it is allowed, and its token bucket."""

    is_allowed: bool
    tokens: float
    at: float


class Sources:
    """Whom datagrams are taken from, and how many; remembers the senders that were heard last.

    The narrowest network of ``allow`` and ``deny`` that holds an address decides; an address in neither is allowed if
    nothing is in ``allow``.
    """

    def __init__(self, config: SnmpTraps) -> None:
        self._config = config
        self._burst = max(1.0, config.rate * _BURST_SECONDS)
        self._known: OrderedDict[str, _Source] = OrderedDict()

    def refusal(self, address: str, now: float) -> str | None:
        """Takes a datagram into account; returns why it is not taken: ``source``, ``rate``, or None if it is."""
        found = self._known.get(address)
        rate = self._config.rate
        if found is None:
            found = self._known[address] = _Source(self._is_allowed(address), self._burst, now)
            if len(self._known) > _MOST_SOURCES:
                self._known.popitem(last=False)
        if not found.is_allowed:
            return "source"
        if not rate:
            return None
        found.tokens = min(self._burst, found.tokens + (now - found.at) * rate)
        found.at = now
        if found.tokens < 1:
            return "rate"
        found.tokens -= 1
        return None

    def _is_allowed(self, address: str) -> bool:
        source = ip_address(address.partition("%")[0])

        def narrowest(networks: Sequence[Any]) -> int:
            return max((n.prefixlen for n in networks if source in n), default=-1)

        allowed, denied = narrowest(self._config.allow), narrowest(self._config.deny)
        if allowed == denied == -1:
            return not self._config.allow
        return allowed > denied


class TrapCollector:
    """Receives on one UDP port until it is stopped."""

    def __init__(self, section: TrapSection, landing: GroupCommit) -> None:
        self._section, self._landing = section, landing
        config = section.config
        self._name = f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}"
        self._sources = Sources(config)
        self._counters = TrapStatus()
        self._server: UdpServer | None = None
        self._engine: SnmpEngine | None = None
        self._logged: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Receives until ``stop`` is set; what has arrived then is landed and answered.

        Raises:
            ConfigurationError: the engine id cannot be kept.
            SourceUnavailableError: the port cannot be listened on.
        """
        config = self._section.config
        self._engine = await asyncio.to_thread(open_engine, self._section.engine_path, self._section.users)
        try:
            self._server = UdpServer(config.host, config.port, config.receive_buffer, self._received)
        except OSError as error:
            self._counters.last_error = f"snmp_traps: cannot listen on {self._name}: {error.strerror or error}"
            raise SourceUnavailableError(self._counters.last_error) from error
        self._counters.last_error = None
        try:
            while not stop.is_set():
                self._counters.dropped_kernel = self._server.kernel_drops()
                try:
                    async with asyncio.timeout(_STATUS_SECONDS):
                        await stop.wait()
                except TimeoutError:
                    continue
            self._server.stop()
            await self._landing.flush()
        finally:
            self._server.close()

    async def reload(self, section: Any) -> bool:
        """Only a new start takes over a change."""
        return bool(section == self._section)

    def status(self) -> dict[str, Any]:
        """The counters, as JSON takes them."""
        return {"listener": self._name, **asdict(self._counters)}

    def _received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        counters = self._counters
        counters.received += 1
        source = _plain(address[0])
        if refusal := self._sources.refusal(source, time.monotonic()):
            self._drop(refusal, source)
            return
        if not self._landing.is_writable:
            self._drop("full", source)
            return
        is_kept, respond = self._judge(datagram, address)
        if is_kept:
            counters.landed += 1
            received_at_us = time.time_ns() // 1000
            self._landing.put((self._name, source, address[1], datagram, received_at_us), respond)
            if respond:
                counters.informs += 1

    def _judge(self, datagram: bytes, address: tuple[Any, ...]) -> tuple[bool, Callable[[], None] | None]:
        """Whether to keep a datagram, and what is to be done once it is durable. What cannot be read is kept."""
        assert self._engine is not None
        try:
            envelope = read_envelope(datagram)
            if envelope.version != 3:
                if envelope.version == 0 or datagram[envelope.at] != INFORM:
                    return True, None
                # Of v2c the answer is the message itself with another tag.
                answer = datagram[: envelope.at] + response_to(datagram, envelope.at, envelope.end)
                return True, partial(self._respond, address, lambda: answer)
            judgement = self._engine.judge(datagram)
        except ValueError:
            return True, None
        if judgement.report:
            self._counters.reports += 1
            self._send(judgement.report, address)
        return judgement.is_kept, partial(self._respond, address, judgement.response) if judgement.response else None

    def _respond(self, address: tuple[Any, ...], answer: Callable[[], bytes]) -> None:
        self._counters.answered += 1
        self._send(answer(), address)

    def _send(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        if self._server:
            self._server.send(datagram, address)

    def _drop(self, why: str, source: str) -> None:
        name = f"dropped_{why}"
        setattr(self._counters, name, getattr(self._counters, name) + 1)
        if time.monotonic() - self._logged.get(why, -_LOG_EVERY) >= _LOG_EVERY:
            self._logged[why] = time.monotonic()
            logger.warning("snmp_traps: dropped a datagram of %s: %s; others are counted", source, _WHY[why])


_WHY = {
    "source": "allow and deny do not let it in",
    "rate": "it sends more than rate allows",
    "full": "landing takes no records",
}


def _plain(address: str) -> str:
    """An address without what a dual-stack socket puts before an IPv4 one."""
    if ":" not in address:
        return address
    bare, _, zone = address.partition("%")
    mapped = IPv6Address(bare).ipv4_mapped
    return str(mapped) if mapped else f"{bare}%{zone}" if zone else bare
