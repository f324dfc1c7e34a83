"""Simulated SNMP v2c agents: a switch, a UPS, a PDU and a Linux server in one process.

They answer GET, GETNEXT and GETBULK (RFC 3416) for the community ``public`` on four UDP ports of loopback. The switch
reboots every 45 s, the server answers slowly. What was answered stands in a file.
"""

import asyncio
import csv
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TextIO

from pipelines.simulate.snmp_devices import Objects, pdu, server, switch, ups
from pipelines.simulate.snmp_responder import Answer, Mib, answer
from resources.errors import ConfigurationError, SourceUnavailableError

HOST = "127.0.0.1"
PORTS = (20161, 20162, 20163, 20164)
ANSWERED_COLUMNS = ("target", "request_id", "oid", "answered_at_us", "requested")
REBOOT_SECONDS = 45.0
REBOOT_SILENCE_SECONDS = 1.0
SLOW_SECONDS = (0.2, 0.8)


class AnsweredFile:
    """The CSV file of what was answered; a header stands in its first line.

    ``requested`` is the OID of the request that a variable binding answers: a GETBULK runs past the end of what its
    sender walks, and a reader of this file can tell what the sender has no use for.
    """

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if self._file.tell() == 0:
            self._writer.writerow(ANSWERED_COLUMNS)

    def write(self, target: str, sent: Answer) -> None:
        """Appends one line a variable binding and makes them visible to other processes."""
        answered_at_us = time.time_ns() // 1000
        lines = ((target, sent.request_id, oid, answered_at_us, requested) for requested, oid in sent.oids)
        self._writer.writerows(lines)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Agent(asyncio.DatagramProtocol):
    """One agent on 127.0.0.1; it lives within ``async with``, and port 0 picks a free one.

    ``delay`` is how many seconds an answer takes, or the bounds of it. With ``reboot_every`` its time starts anew each
    so many seconds, and it drops what comes within a second of that. ``clock`` counts seconds.
    """

    def __init__(
        self,
        port: int,
        objects: Objects,
        delay: float | tuple[float, float] = 0.0,
        *,
        reboot_every: float | None = None,
        answered: AnsweredFile | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self.counts = {"answered": 0, "varbinds": 0, "ignored": 0, "dropped": 0}
        self._mib = Mib(objects)
        self._delay = delay if isinstance(delay, tuple) else (delay, delay)
        self._reboot_every = reboot_every
        self._answered = answered
        self._random = random.Random(seed)
        self._clock = clock
        self._started = 0.0

    @property
    def target(self) -> str:
        """``host:port``, the device's identity."""
        return f"{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        """Listens.

        Raises:
            SourceUnavailableError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(HOST, self.port))
        except OSError as error:
            raise SourceUnavailableError(f"{self.target}: cannot listen: {error.strerror}") from error
        self.port = self._transport.get_extra_info("sockname")[1]
        self._started = self._clock()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stops listening; answers under way are not sent."""
        self._transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answers ``data``, at once or after the delay."""
        if self._is_rebooting():
            self.counts["dropped"] += 1
        elif self._delay[1] > 0:
            asyncio.get_running_loop().call_later(self._random.uniform(*self._delay), self._respond, data, addr)
        else:
            self._respond(data, addr)

    def _up_seconds(self) -> float:
        up = self._clock() - self._started
        return up if self._reboot_every is None else up % self._reboot_every

    def _is_rebooting(self) -> bool:
        up = self._clock() - self._started
        return (
            self._reboot_every is not None
            and up >= self._reboot_every > 0
            and (up % self._reboot_every < REBOOT_SILENCE_SECONDS)
        )

    def _respond(self, data: bytes, addr: Any) -> None:
        if self._transport.is_closing():
            return
        sent = answer(self._mib, data, self._up_seconds())
        if sent is None:
            self.counts["ignored"] += 1
            return
        self._transport.sendto(sent.payload, addr)
        self.counts["answered"] += 1
        self.counts["varbinds"] += len(sent.oids)
        if self._answered is not None:
            self._answered.write(self.target, sent)


class SnmpAgents:
    """The four devices; they live within ``async with``.

    ``ports`` are those of the switch, the UPS, the PDU and the server, in this order.
    """

    def __init__(
        self,
        ports: Sequence[int] = PORTS,
        answered: Path | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if len(ports) != len(PORTS):
            raise ConfigurationError(f"--ports must name {len(PORTS)} ports, got {len(ports)}")
        self._ports = ports
        self._path = answered
        self._seed = seed
        self._clock = clock
        self.agents: list[Agent] = []

    @property
    def targets(self) -> list[str]:
        """``host:port`` of each agent."""
        return [agent.target for agent in self.agents]

    @property
    def counts(self) -> dict[str, int]:
        """Requests answered, ignored (malformed) and dropped (rebooting), and varbinds answered, over all agents."""
        return {name: sum(agent.counts[name] for agent in self.agents) for name in self.agents[0].counts}

    async def __aenter__(self) -> Self:
        """Opens the file and starts the agents.

        Raises:
            ConfigurationError: the file cannot be written.
            SourceUnavailableError: a port is taken.
        """
        async with AsyncExitStack() as stack:
            answered = self._opened()
            if answered is not None:
                stack.callback(answered.close)
            self.agents = [self._agent(position, answered) for position in range(len(self._ports))]
            for agent in self.agents:
                await stack.enter_async_context(agent)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stops the agents and closes the file."""
        await self._stack.aclose()

    def _opened(self) -> AnsweredFile | None:
        try:
            return None if self._path is None else AnsweredFile(self._path)
        except OSError as error:
            raise ConfigurationError(f"--answered {self._path}: {error.strerror}") from error

    def _agent(self, position: int, answered: AnsweredFile | None) -> Agent:
        build = (switch, ups, pdu, server)[position]
        return Agent(
            self._ports[position],
            build(self._seed),
            SLOW_SECONDS if build is server else 0.0,
            reboot_every=REBOOT_SECONDS if build is switch else None,
            answered=answered,
            seed=self._seed,
            clock=self._clock,
        )


async def _serve(agents: SnmpAgents) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with agents:
        _print({"phase": "listening", "targets": agents.targets})
        await stopped.wait()
    _print({"phase": "done", **agents.counts})


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def run(ports: Sequence[int], answered: Path | None, seed: int) -> None:
    """Runs the agents until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: the ports are not four, or the file cannot be written.
        SourceUnavailableError: a port is taken.
    """
    asyncio.run(_serve(SnmpAgents(ports, answered, seed)))
