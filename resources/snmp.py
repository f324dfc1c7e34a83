"""SNMP v1, v2c and v3 polls of one agent over UDP (RFC 3416 section 4.2, RFC 3417 section 3), asyncio.

Object identifiers are numeric; no MIB is read.
"""

import asyncio
import itertools
import operator
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from resources.errors import SourceUnavailableError
from resources.snmp_ber import sub_identifiers
from resources.snmp_message import END_OF_MIB_VIEW, NO_SUCH_NAME, REPORT, Operation, Response, Varbind, Version
from resources.snmp_security import WAYS_OUT, CommunitySecurity, Security, Unwrapped, UsmSecurity
from resources.snmp_usm import UsmUser
from resources.udp import UdpSocket, connected_socket

MAX_OIDS = 60
MAX_REPETITIONS = 40

_GROW_AFTER = 8
_RESYNCS = 2


_FORGOTTEN = Unwrapped(0, Response(REPORT, 0, 0, 0, 0, []), "unknownEngineIDs")


@dataclass
class Traffic:
    """What a poll cost: PDUs sent, how many of them were sent again, and how many nobody answered in time."""

    pdus: int = 0
    retries: int = 0
    timeouts: int = 0

    def add(self, other: "Traffic") -> None:
        """Adds another poll's."""
        self.pdus += other.pdus
        self.retries += other.retries
        self.timeouts += other.timeouts


@dataclass(frozen=True)
class Answer:
    """What a get or a walk brought, and beside it the error that cut it short, if one did.

    ``timed_out`` says that the error is an agent that could not be reached at all.
    """

    varbinds: Sequence[Varbind]
    error: SourceUnavailableError | None = None
    timed_out: bool = False
    traffic: Traffic = field(default_factory=Traffic)


class _TimedOutError(SourceUnavailableError):
    """No answer to any of the tries, or no address to send to."""


class _Endpoint:
    """The socket of one agent: hands an answer to the request that waits for its message id and drops any other.

    ``trouble`` is the last thing that went wrong on it, for the message of a timeout.
    """

    def __init__(self, security: Security) -> None:
        self.waiting: dict[int, asyncio.Future[Unwrapped | None]] = {}
        self.trouble = ""
        self.socket: UdpSocket | None = None
        self._security = security

    def received(self, datagram: bytes) -> None:
        try:
            answer = self._security.unwrap(datagram, time.time_ns() // 1000)
        except ValueError as error:
            self.trouble = f"a datagram was dropped: {error}"
            return
        future = self.waiting.get(answer.message_id)
        if future and not future.done():
            future.set_result(answer)

    def failed(self, error: OSError) -> None:
        self.trouble = error.strerror or str(error)


@dataclass
class _Walk:
    """How far a walk has come; the OIDs it has taken lie below the root and increase."""

    root: str
    last: str
    varbinds: list[Varbind] = field(default_factory=list)

    def take(self, varbinds: Sequence[Varbind]) -> bool:
        """Adds what lies below the root; returns whether the walk goes on. ValueError if the OIDs do not increase."""
        if not varbinds:
            raise ValueError("the answer holds no varbinds")
        below, last = self.root + ".", sub_identifiers(self.last)
        oids = [sub_identifiers(varbind.oid) for varbind in varbinds]
        if varbinds[-1].oid.startswith(below) and all(map(operator.lt, (last, *oids), oids)):
            # They increase from below the root to below the root; so all are, and an exception would repeat an OID.
            self.varbinds += varbinds
            self.last = varbinds[-1].oid
            return True
        for varbind in varbinds:
            if varbind.wire_type in (END_OF_MIB_VIEW, NO_SUCH_NAME) or not varbind.oid.startswith(below):
                return False
            oid = sub_identifiers(varbind.oid)
            if oid <= last:
                raise ValueError(f"OIDs must increase, got {varbind.oid} after {self.last}")
            self.varbinds.append(varbind)
            self.last, last = varbind.oid, oid
        return True


class SnmpSession:
    """Polls of one agent; several requests may be under way at once.

    A try waits ``timeout_s`` for its answer. A request is tried ``retries`` times more with the same request-id: the
    first answer to any try counts, later ones are dropped. How many rows a walk asks for at once, and how many objects
    a get, shrinks where the agent cannot answer so many, and grows again slowly; 0 rows are asked for by GETNEXT.
    """

    def __init__(
        self,
        host: str,
        port: int = 161,
        version: Version = "2c",
        community: str = "public",
        timeout_s: float = 2.0,
        retries: int = 1,
        *,
        user: UsmUser | None = None,
        context: str = "",
        max_repetitions: int = MAX_REPETITIONS,
    ) -> None:
        self.host, self.port, self.timeout_s, self.retries = host, port, timeout_s, retries
        self.target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._version: Version = version
        self._security: Security = (
            UsmSecurity(user, context) if user else CommunitySecurity(version, community.encode())
        )
        self._endpoint: _Endpoint | None = None
        self._opening = asyncio.Lock()
        self._probing = asyncio.Lock()
        # A random start keeps answers to an earlier process apart from answers to this one.
        self._message_ids = itertools.count(random.getrandbits(30))
        self._is_closed = False
        self._rows = _Pace(max_repetitions)
        self._objects = _Pace(MAX_OIDS)

    async def get(self, oids: Sequence[str]) -> Answer:
        """Asks for instances, at most ``MAX_OIDS`` a PDU.

        A PDU that is tooBig is halved; an object that the agent reports an error for does not hold up the others.
        """
        wanted = list(dict.fromkeys(oid.lstrip(".") for oid in oids))
        size = self._objects.size
        todo = deque(wanted[at : at + size] for at in range(0, len(wanted), size))
        varbinds: list[Varbind] = []
        traffic = Traffic()
        error: SourceUnavailableError | None = None
        while todo:
            chunk = todo.popleft()
            try:
                response = await self._request("get", chunk, f"get of {_named(chunk)}", traffic)
            except SourceUnavailableError as unavailable:
                return Answer(varbinds, unavailable, isinstance(unavailable, _TimedOutError), traffic)
            self._objects.note(len(chunk), is_too_much=response.error == "tooBig")
            todo.extendleft(reversed(_asked_again(response, chunk)))
            try:
                varbinds += self._accepted(response, chunk, f"get of {_named(chunk)}")
            except SourceUnavailableError as refused:
                error = error or refused
        return Answer(varbinds, error, traffic=traffic)

    async def walk(self, root: str) -> Answer:
        """Asks for all that lies below ``root``, by GETBULK or GETNEXT, until an answer lies outside of it."""
        root = root.lstrip(".")
        state, traffic, what = _Walk(root, root), Traffic(), f"walk of {root}"
        try:
            goes_on = True
            while goes_on:
                response = await self._request_rows(state, what, traffic)
                if response.error == "tooBig" and self._rows.size > 1:
                    self._rows.note(self._rows.size, is_too_much=True)
                    continue
                goes_on = state.take(self._accepted(response, [state.last], what))
        except ValueError as error:
            cut = SourceUnavailableError(f"target {self.target}: walk of {root} was cut: {error}")
            return Answer(state.varbinds, cut, traffic=traffic)
        except SourceUnavailableError as error:
            return Answer(state.varbinds, error, isinstance(error, _TimedOutError), traffic)
        return Answer(state.varbinds, traffic=traffic)

    async def _request_rows(self, state: _Walk, what: str, traffic: Traffic) -> Response:
        """The next rows of a walk; an agent that has answered before and is silent now is asked for fewer."""
        if self._version == "1" or not self._rows.size:
            return await self._request("next", [state.last], what, traffic)
        while True:
            try:
                response = await self._request("bulk", [state.last], what, traffic, self._rows)
            except _TimedOutError:
                if self._rows.size == 1 or not state.varbinds:
                    raise
                self._rows.note(self._rows.size, is_too_much=True)
            else:
                if not response.error:
                    self._rows.note(self._rows.size, is_too_much=False)
                return response

    def close(self) -> None:
        """Closes the socket; what is under way ends with an error and keeps what it has."""
        self._is_closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None or endpoint.socket is None:
            return
        endpoint.socket.close()
        for future in endpoint.waiting.values():
            if not future.done():
                future.set_exception(SourceUnavailableError(f"target {self.target}: the poll was stopped"))

    def _accepted(self, response: Response, asked: Sequence[str], what: str) -> list[Varbind]:
        """The varbinds of an answer; SourceUnavailableError for an error that is neither tooBig nor noSuchName."""
        if not response.error:
            return response.varbinds
        if response.error == "tooBig" and len(asked) > 1:
            return []
        at_fault = _at_fault(response, asked)
        if response.error == NO_SUCH_NAME and at_fault:
            return [Varbind(at_fault, NO_SUCH_NAME, b"", response.request_id, response.received_at_us)]
        raise SourceUnavailableError(
            f"target {self.target}: {what} was answered with {response.error}"
            + (f" for {at_fault}" if at_fault else "")
        )

    async def _request(
        self, operation: Operation, oids: list[str], what: str, traffic: Traffic, rows: "_Pace | None" = None
    ) -> Response:
        """Asks until it is answered; an agent whose engine or time has changed is asked again.

        Raises:
            SourceUnavailableError: no answer to any try, no address for the name, the agent refuses the user, or the
                session was closed meanwhile.
        """
        for _ in range(_RESYNCS + 1):
            await self._probe(what, traffic)
            endpoint = await self._connected(what)
            answer = await self._exchange(endpoint, operation, oids, what, traffic, rows)
            if not answer.report:
                return answer.response
            if answer.report == "unknownEngineIDs":
                self._security.forget()
            elif answer.report != "notInTimeWindows":
                break
        self._security.forget()
        because = WAYS_OUT.get(answer.report, "")
        raise SourceUnavailableError(
            f"target {self.target}: {what} was refused with {answer.report}{f': {because}' if because else ''}"
        )

    async def _probe(self, what: str, traffic: Traffic) -> None:
        """Makes the security ready; of several requests at once, one does it."""
        if self._security.is_ready:
            return
        async with self._probing:
            while not self._security.is_ready:
                await self._exchange(await self._connected(what), None, [], what, traffic)

    async def _exchange(
        self,
        endpoint: _Endpoint,
        operation: Operation | None,
        oids: list[str],
        what: str,
        traffic: Traffic,
        rows: "_Pace | None" = None,
    ) -> Unwrapped:
        """Sends a message, or a probe, until it is answered; each try of a walk asks for half as many rows."""
        message_id = next(self._message_ids) & 0x7FFFFFFF
        loop = asyncio.get_running_loop()
        count, packet = rows.size if rows else 0, b""
        try:
            for attempt in range(self.retries + 1):
                if endpoint.socket is None or self._endpoint is not endpoint:
                    raise SourceUnavailableError(f"target {self.target}: the poll was stopped")
                if operation and not self._security.is_ready:
                    return _FORGOTTEN  # by a request at the same time that was told so
                if not packet or count > 1:
                    count = count if attempt == 0 else max(1, count // 2)
                    packet = (
                        self._security.wrap(operation, oids, message_id, count)
                        if operation
                        else self._security.probe(message_id)
                    )
                future: asyncio.Future[Unwrapped | None] = loop.create_future()
                endpoint.waiting[message_id] = future
                traffic.pdus += 1
                traffic.retries += attempt > 0
                endpoint.socket.send(packet)
                timer = loop.call_later(self.timeout_s, _give_up, future)
                try:
                    answer = await future
                finally:
                    timer.cancel()
                if answer:
                    endpoint.trouble = ""
                    if rows and attempt:
                        rows.size = count
                    return answer
                traffic.timeouts += 1
        finally:
            endpoint.waiting.pop(message_id, None)
        raise self._timed_out(what, endpoint)

    def _timed_out(self, what: str, endpoint: _Endpoint) -> SourceUnavailableError:
        because = "".join(f": {why}" for why in (endpoint.trouble, self._security.silence) if why)
        if self._endpoint is endpoint and not endpoint.waiting:
            # The next request resolves the name again, and its new port cannot be reached by late answers.
            self._disconnect()
            self._security.forget()
        return _TimedOutError(
            f"target {self.target}: {what} timed out after {self.timeout_s:g} s ({self.retries} retries){because}"
        )

    async def _connected(self, what: str) -> _Endpoint:
        if self._endpoint:
            return self._endpoint
        async with self._opening:
            endpoint = self._endpoint = self._endpoint or await self._open(what)
            if self._is_closed:
                self._disconnect()
                raise SourceUnavailableError(f"target {self.target}: the poll was stopped")
            return endpoint

    async def _open(self, what: str) -> _Endpoint:
        """A connected socket: the kernel drops datagrams of other senders, and tells of a closed port."""
        endpoint = _Endpoint(self._security)
        try:
            async with asyncio.timeout(self.timeout_s):
                connected = await connected_socket(self.host, self.port)
        except TimeoutError as error:
            raise _TimedOutError(
                f"target {self.target}: {what} timed out after {self.timeout_s:g} s: no address for {self.host!r}"
            ) from error
        except OSError as error:
            raise _TimedOutError(f"target {self.target}: {what} failed: {error.strerror or error}") from error
        endpoint.socket = UdpSocket(connected, endpoint.received, endpoint.failed)
        return endpoint


class _Pace:
    """How much is asked for at once: half after each time that it was too much, twice after a while of success."""

    def __init__(self, most: int) -> None:
        self.size = self._most = most
        self._successes = 0

    def note(self, tried: int, *, is_too_much: bool) -> None:
        self._successes = 0 if is_too_much else self._successes + 1
        if is_too_much:
            self.size = min(self.size, max(1, tried // 2))
        elif self._successes >= _GROW_AFTER and self.size < self._most:
            self._successes, self.size = 0, min(self._most, 2 * self.size)


def _give_up(future: "asyncio.Future[Unwrapped | None]") -> None:
    if not future.done():
        future.set_result(None)


def _named(oids: Sequence[str]) -> str:
    return oids[0] if len(oids) == 1 else f"{oids[0]} and {len(oids) - 1} more"


def _at_fault(response: Response, asked: Sequence[str]) -> str | None:
    """The object that an error-index names, if it names one."""
    return asked[response.error_index - 1] if 1 <= response.error_index <= len(asked) else None


def _asked_again(response: Response, asked: list[str]) -> list[list[str]]:
    """What of a GET in error to ask again: both halves where it was tooBig, else all but the object at fault."""
    if response.error == "tooBig":
        half = len(asked) // 2
        return [asked[:half], asked[half:]] if half else []
    at_fault = _at_fault(response, asked) if response.error else None
    rest = [oid for oid in asked if oid != at_fault]
    return [rest] if at_fault and rest else []
