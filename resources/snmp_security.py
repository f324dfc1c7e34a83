"""How requests to one agent are wrapped and its answers unwrapped: by community (v1, v2c) or by user (v3).

RFC 3414 section 3 (timeliness, reports) and section 4 (discovery of the engine id and time) for v3.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from resources.snmp_message import REPORT, Operation, Response, Version, encode_pdu, encode_request, parse_pdu
from resources.snmp_message import parse_response as parse_community_response
from resources.snmp_usm import (
    ScopedPdu,
    UsmUser,
    V3Message,
    localize,
    open_message,
    parse_message,
    scope,
    seal_message,
)

TIME_WINDOW = 150
"""Seconds that a message may be late (RFC 3414 section 2.2.3)."""

_MOST_BOOTS = 2**31 - 1
_USM_STATS = "1.3.6.1.6.3.15.1.1."
_REPORTS = {
    "1": "unsupportedSecLevels",
    "2": "notInTimeWindows",
    "3": "unknownUserNames",
    "4": "unknownEngineIDs",
    "5": "wrongDigests",
    "6": "decryptionErrors",
}
WAYS_OUT = {
    "unsupportedSecLevels": "its user has no such security level; look at auth_protocol and priv_protocol",
    "unknownUserNames": "it does not know the user",
    "wrongDigests": "it has another auth_password or auth_protocol",
    "decryptionErrors": "it has another priv_password or priv_protocol",
    "notInTimeWindows": "its engine time does not come to rest",
    "unknownEngineIDs": "its engine id changes",
}
_NOBODY = UsmUser("")


class Unwrapped(NamedTuple):
    """An answer, the id of the message that it answers, and the name of the report, if it is one."""

    message_id: int
    response: Response
    report: str = ""


class Security(Protocol):
    """What a session needs of either."""

    @property
    def is_ready(self) -> bool:
        """Whether requests can be wrapped; else ``probe`` is to be sent and its answer unwrapped."""

    def probe(self, message_id: int) -> bytes:
        """The message that asks for what is missing."""

    def wrap(self, operation: Operation, oids: list[str], message_id: int, rows: int) -> bytes:
        """A message that asks for ``oids``; request-id and message id are the same number."""

    def unwrap(self, datagram: bytes, received_at_us: int) -> Unwrapped:
        """Reads an answer; ValueError if it is none of this agent's."""

    def forget(self) -> None:
        """Drops what was learned of the agent: it may be another one now."""

    @property
    def silence(self) -> str:
        """What may be why it does not answer; empty if nothing is known."""


@dataclass
class CommunitySecurity:
    """v1 and v2c."""

    version: Version
    community: bytes
    is_ready = True
    silence = ""

    def probe(self, message_id: int) -> bytes:
        """Nothing is ever missing."""
        raise AssertionError("a community is ready")

    def wrap(self, operation: Operation, oids: list[str], message_id: int, rows: int) -> bytes:
        """See ``Security``."""
        return encode_request(self.version, self.community, operation, oids, message_id, rows)

    def unwrap(self, datagram: bytes, received_at_us: int) -> Unwrapped:
        """See ``Security``."""
        response = parse_community_response(datagram, received_at_us, self.version, self.community)
        return Unwrapped(response.request_id, response)

    def forget(self) -> None:
        """Nothing was learned."""


@dataclass
class _Clock:
    """What is known of an engine's boots and time. A probe's answer is not signed, so it is a first guess only."""

    boots: int
    offset: float
    latest: int
    is_signed: bool

    def time(self, now: float) -> int:
        return max(0, min(_MOST_BOOTS, int(now + self.offset)))


class UsmSecurity:
    """v3: knows the engine id, boots and time of one agent, once it has been probed. ``clock`` counts seconds."""

    def __init__(self, user: UsmUser, context: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.user, self.context = user, context
        self.engine_id = b""
        self._now = clock
        self._clock: _Clock | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the engine is known."""
        return self._clock is not None

    def probe(self, message_id: int) -> bytes:
        """RFC 3414 section 4: no user, no engine id; the report that answers names the engine."""
        return seal_message(localize(_NOBODY, b""), message_id, 0, 0, scope(b"", "", encode_pdu("get", [], message_id)))

    def wrap(self, operation: Operation, oids: list[str], message_id: int, rows: int) -> bytes:
        """See ``Security``."""
        assert self._clock is not None
        scoped = scope(self.engine_id, self.context, encode_pdu(operation, oids, message_id, rows))
        keys = localize(self.user, self.engine_id)
        return seal_message(keys, message_id, self._clock.boots, self._clock.time(self._now()), scoped)

    def unwrap(self, datagram: bytes, received_at_us: int) -> Unwrapped:
        """See ``Security``. Engine id and time are learned from it.

        Raises:
            ValueError: also for a response of another user, engine, context or security level, with a wrong signature
                or outside of the time window.
        """
        message = parse_message(datagram)
        user = self.user if message.is_signed else _NOBODY
        scoped = open_message(message, localize(user, self.engine_id or message.engine_id))
        response = parse_pdu(scoped.data, scoped.at, scoped.end, received_at_us)
        if response.tag == REPORT:
            return Unwrapped(message.message_id, response, self._report(message, response))
        self._check(message, scoped)
        if response.request_id != message.message_id:
            raise ValueError(f"request-id {response.request_id} in the answer to {message.message_id}")
        return Unwrapped(message.message_id, response)

    def forget(self) -> None:
        """The next request probes again."""
        self.engine_id, self._clock = b"", None

    @property
    def silence(self) -> str:
        """See ``Security``. Agents drop what they cannot decrypt, some of them without a report."""
        if self.user.priv_protocol and self._clock and not self._clock.is_signed:
            return "it answers discovery alone; it may have another priv_password or priv_protocol"
        return ""

    def _report(self, message: V3Message, response: Response) -> str:
        name = ""
        for varbind in response.varbinds:
            if varbind.oid.startswith(_USM_STATS):
                name = _REPORTS.get(varbind.oid.removeprefix(_USM_STATS).split(".")[0], varbind.oid)
        if not name:
            raise ValueError("a report that names no counter of the User-based Security Model")
        if self._clock is None:
            if not 5 <= len(message.engine_id) <= 32:
                raise ValueError(f"engine id of {len(message.engine_id)} octets, RFC 3411 has 5 to 32")
            self.engine_id = message.engine_id
            self._learn(message)
        elif name == "notInTimeWindows":
            if not message.is_signed or message.engine_id != self.engine_id:
                raise ValueError("a report of the engine's time that is not signed")
            self._learn(message)
        return name

    def _learn(self, message: V3Message) -> None:
        self._clock = _Clock(message.boots, message.time - self._now(), message.time, message.is_signed)

    def _check(self, message: V3Message, scoped: ScopedPdu) -> None:
        user = self.user
        if (message.user, message.engine_id) != (user.name.encode(), self.engine_id):
            raise ValueError("the answer is of another user or engine")
        if message.flags & 0x03 != user.flags:
            raise ValueError(f"the answer has the security level {message.flags & 3}, asked was with {user.flags}")
        if scoped.context != self.context.encode():
            raise ValueError(f"the answer is of the context {scoped.context!r}, asked was for {self.context!r}")
        if message.is_signed:
            self._check_time(message)

    def _check_time(self, message: V3Message) -> None:
        """RFC 3414 section 3.2 (7) b."""
        clock = self._clock
        if clock is None:
            raise ValueError("the engine is not known yet")
        if not clock.is_signed or (message.boots, message.time) > (clock.boots, clock.latest):
            self._learn(message)
        elif message.boots < clock.boots or message.time < clock.time(self._now()) - TIME_WINDOW:
            raise ValueError(f"the answer is older than {TIME_WINDOW} s by the engine's time")
        if message.boots == _MOST_BOOTS:
            raise ValueError("the engine's boots have come to their end; its keys must be renewed")
