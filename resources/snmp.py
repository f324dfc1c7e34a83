"""SNMP v1 and v2c polls of one agent over UDP (RFC 3416 section 4.2, RFC 3417 section 3), asyncio.

Object identifiers are numeric; no MIB is read.
"""

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from resources.errors import SourceUnavailableError
from resources.snmp_message import (
    END_OF_MIB_VIEW,
    NO_SUCH_NAME,
    Operation,
    Response,
    Varbind,
    Version,
    encode_request,
    parse_response,
)

MAX_OIDS = 40
_VERSION_NUMBERS = {"1": 0, "2c": 1}


@dataclass(frozen=True)
class Answer:
    """What a get or a walk brought, and beside it the error that cut it short, if one did.

    ``timed_out`` says that the error is an agent that could not be reached at all.
    """

    varbinds: Sequence[Varbind]
    error: SourceUnavailableError | None = None
    timed_out: bool = False


class _TimedOutError(SourceUnavailableError):
    """No answer to any of the tries, or no address to send to."""


@dataclass
class _Endpoint(asyncio.DatagramProtocol):
    """The socket of one agent: hands an answer to the request that waits for its request-id and drops any other.

    ``trouble`` is the last thing that went wrong on it, for the message of a timeout.
    """

    version: int
    community: bytes
    waiting: dict[int, asyncio.Future[Response]] = field(default_factory=dict)
    trouble: str = ""
    transport: asyncio.DatagramTransport | None = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            response = parse_response(data, time.time_ns() // 1000)
        except ValueError as error:
            self.trouble = f"a datagram is no SNMP response: {error}"
            return
        future = self.waiting.get(response.request_id)
        is_ours = (response.version, response.community) == (self.version, self.community)
        if future and is_ours and not future.done():
            future.set_result(response)

    def error_received(self, exc: Exception) -> None:
        self.trouble = getattr(exc, "strerror", None) or str(exc)


@dataclass
class _Walk:
    """How far a walk has come; the OIDs it has taken lie below the root and increase."""

    root: tuple[int, ...]
    last: tuple[int, ...]
    varbinds: list[Varbind] = field(default_factory=list)

    def take(self, varbinds: Sequence[Varbind]) -> bool:
        """Adds what lies below the root; returns whether the walk goes on. ValueError if the OIDs do not increase."""
        if not varbinds:
            raise ValueError("the answer holds no varbinds")
        for varbind in varbinds:
            oid = _sub_identifiers(varbind.oid)
            if varbind.wire_type in (END_OF_MIB_VIEW, NO_SUCH_NAME) or oid[: len(self.root)] != self.root:
                return False
            if oid <= self.last:
                raise ValueError(f"OIDs must increase, got {varbind.oid} after {_dotted(self.last)}")
            self.varbinds.append(varbind)
            self.last = oid
        return True


class SnmpSession:
    """Polls of one agent; several requests may be under way at once.

    A try waits ``timeout_s`` for its answer. A request is tried ``retries`` times more with the same request-id: the
    first answer to any try counts, later ones are dropped.
    """

    def __init__(
        self,
        host: str,
        port: int = 161,
        version: Version = "2c",
        community: str = "public",
        timeout_s: float = 2.0,
        retries: int = 1,
    ) -> None:
        self.host, self.port, self.timeout_s, self.retries = host, port, timeout_s, retries
        self.target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._version: Version = version
        self._community = community.encode()
        self._endpoint: _Endpoint | None = None
        self._opening = asyncio.Lock()
        # A random start keeps answers to an earlier process apart from answers to this one.
        self._request_ids = itertools.count(random.getrandbits(30))
        self._is_closed = False

    async def get(self, oids: Sequence[str]) -> Answer:
        """Asks for instances, at most ``MAX_OIDS`` a PDU.

        A PDU that is tooBig is halved; an object that the agent reports an error for does not hold up the others.
        """
        wanted = list(dict.fromkeys(oid.lstrip(".") for oid in oids))
        todo = deque(wanted[at : at + MAX_OIDS] for at in range(0, len(wanted), MAX_OIDS))
        varbinds: list[Varbind] = []
        error: SourceUnavailableError | None = None
        while todo:
            chunk = todo.popleft()
            try:
                response = await self._request("get", chunk, f"get of {_named(chunk)}")
            except SourceUnavailableError as unavailable:
                return Answer(varbinds, unavailable, isinstance(unavailable, _TimedOutError))
            todo.extendleft(reversed(_asked_again(response, chunk)))
            try:
                varbinds += self._accepted(response, chunk, f"get of {_named(chunk)}")
            except SourceUnavailableError as refused:
                error = error or refused
        return Answer(varbinds, error)

    async def walk(self, root: str, max_repetitions: int = 20) -> Answer:
        """Asks for all that lies below ``root``, by GETBULK (v1: GETNEXT), until an answer lies outside of it."""
        root = root.lstrip(".")
        state = _Walk(_sub_identifiers(root), _sub_identifiers(root))
        operation: Operation = "next" if self._version == "1" else "bulk"
        try:
            goes_on = True
            while goes_on:
                asked = [_dotted(state.last)]
                response = await self._request(operation, asked, f"walk of {root}", max_repetitions)
                if response.error == "tooBig" and max_repetitions > 1:
                    max_repetitions //= 2
                    continue
                goes_on = state.take(self._accepted(response, asked, f"walk of {root}"))
        except ValueError as error:
            cut = SourceUnavailableError(f"target {self.target}: walk of {root} was cut: {error}")
            return Answer(state.varbinds, cut)
        except SourceUnavailableError as error:
            return Answer(state.varbinds, error, isinstance(error, _TimedOutError))
        return Answer(state.varbinds)

    def close(self) -> None:
        """Closes the socket; what is under way ends with an error and keeps what it has."""
        self._is_closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None or endpoint.transport is None:
            return
        endpoint.transport.close()
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

    async def _request(self, operation: Operation, oids: Sequence[str], what: str, rows: int = 0) -> Response:
        """Sends a PDU until it is answered.

        Raises:
            SourceUnavailableError: no answer to any try, no address for the name, or the session was closed meanwhile.
        """
        request_id = next(self._request_ids) & 0x7FFFFFFF
        packet = encode_request(self._version, self._community, operation, oids, request_id, rows)
        endpoint = await self._connected(what)
        assert endpoint.transport is not None
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        endpoint.waiting[request_id] = future
        try:
            for _ in range(self.retries + 1):
                endpoint.transport.sendto(packet)
                await asyncio.wait([future], timeout=self.timeout_s)
                if future.done():
                    endpoint.trouble = ""
                    return future.result()
        finally:
            del endpoint.waiting[request_id]
        raise self._timed_out(what, endpoint)

    def _timed_out(self, what: str, endpoint: _Endpoint) -> SourceUnavailableError:
        if self._endpoint is endpoint and not endpoint.waiting:
            # The next request resolves the name again, and its new port cannot be reached by late answers.
            self._disconnect()
        because = f": {endpoint.trouble}" if endpoint.trouble else ""
        return _TimedOutError(
            f"target {self.target}: {what} timed out after {self.timeout_s:g} s ({self.retries} retries){because}"
        )

    async def _connected(self, what: str) -> _Endpoint:
        async with self._opening:
            endpoint = self._endpoint = self._endpoint or await self._open(what)
            if self._is_closed:
                self._disconnect()
                raise SourceUnavailableError(f"target {self.target}: the poll was stopped")
            return endpoint

    async def _open(self, what: str) -> _Endpoint:
        """A connected socket: the kernel drops datagrams of other senders, and tells of a closed port."""

        def make() -> _Endpoint:
            return _Endpoint(_VERSION_NUMBERS[self._version], self._community)

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout_s):
                transport, endpoint = await loop.create_datagram_endpoint(make, remote_addr=(self.host, self.port))
        except TimeoutError as error:
            raise _TimedOutError(
                f"target {self.target}: {what} timed out after {self.timeout_s:g} s: no address for {self.host!r}"
            ) from error
        except OSError as error:
            raise _TimedOutError(f"target {self.target}: {what} failed: {error.strerror or error}") from error
        endpoint.transport = transport
        return endpoint


def _sub_identifiers(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))


def _dotted(oid: tuple[int, ...]) -> str:
    return ".".join(map(str, oid))


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
