"""Our own SNMPv3 engine: the authoritative side of INFORMs (RFC 3414 sections 2 and 3.2)."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from resources.errors import ConfigurationError
from resources.snmp_ber import SEQUENCE, element, integer, object_identifier, read_element
from resources.snmp_message import REPORT
from resources.snmp_notification import INFORM, open_v3, response_to
from resources.snmp_security import TIME_WINDOW
from resources.snmp_usm import (
    ScopedPdu,
    UsmError,
    UsmKeys,
    UsmUser,
    V3Message,
    localize,
    parse_message,
    scope,
    seal_message,
)

_REPORTABLE = 0x04
_COUNTER32 = 0x41
_USM_STATS = "1.3.6.1.6.3.15.1.1"
_COUNTERS = {
    "unsupportedSecLevels": 1,
    "notInTimeWindows": 2,
    "unknownUserNames": 3,
    "unknownEngineIDs": 4,
    "wrongDigests": 5,
    "decryptionErrors": 6,
}
_MOST_BOOTS = 2**31 - 1
_PRIVATE_ENTERPRISE_NUMBER = 0x80000000 | 8072  # net-snmp's, with the form "octets": we have no number of our own
_NOBODY = UsmUser("")


class Judgement(NamedTuple):
    """What to do with a v3 message: whether to keep it, and what to send at once or once it is durable."""

    is_kept: bool
    report: bytes | None = None
    response: Callable[[], bytes] | None = None


@dataclass
class SnmpEngine:
    """An engine id with its boots; ``clock`` counts seconds."""

    engine_id: bytes
    boots: int
    users: Mapping[str, Sequence[UsmUser]]
    clock: Callable[[], float] = time.monotonic
    reports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def time(self) -> int:
        """Seconds since the engine booted."""
        return int(self.clock() - self._began)

    def judge(self, datagram: bytes) -> Judgement:
        """Looks at a v3 message. What wants no answer, a trap, is kept unread.

        Raises:
            ValueError: it is no v3 message of the User-based Security Model.
        """
        message = parse_message(datagram)
        if not message.flags & _REPORTABLE:
            return Judgement(is_kept=True)
        if message.engine_id != self.engine_id:
            return Judgement(is_kept=False, report=self._report(message, "unknownEngineIDs"))
        try:
            scoped, keys = open_v3(datagram, self.users)
        except UsmError as error:
            # Kept: it can be read once its user is known.
            return Judgement(is_kept=True, report=self._report(message, error.reason))
        if message.is_signed and not self._is_timely(message):
            return Judgement(is_kept=False, report=self._report(message, "notInTimeWindows", keys))
        if read_element(scoped.data, scoped.at, scoped.end)[0] != INFORM:
            return Judgement(is_kept=True)
        return Judgement(is_kept=True, response=lambda: self._response(message, scoped, keys))

    def _is_timely(self, message: V3Message) -> bool:
        return message.boots == self.boots < _MOST_BOOTS and abs(message.time - self.time) <= TIME_WINDOW

    def _response(self, message: V3Message, scoped: ScopedPdu, keys: UsmKeys) -> bytes:
        pdu = response_to(scoped.data, scoped.at, read_element(scoped.data, scoped.at, scoped.end)[2])
        answer = scope(scoped.context_engine_id, scoped.context.decode("utf-8", "surrogateescape"), pdu)
        return seal_message(keys, message.message_id, self.boots, self.time, answer, is_reportable=False)

    def _report(self, message: V3Message, reason: str, keys: UsmKeys | None = None) -> bytes:
        """RFC 3414 section 3.2; a report of our time is signed, so that the sender may believe it."""
        self.reports[reason] = self.reports.get(reason, 0) + 1
        name = object_identifier(f"{_USM_STATS}.{_COUNTERS[reason]}.0")
        count = self.reports[reason] & 0x7FFFFFFF
        value = element(_COUNTER32, count.to_bytes(count.bit_length() // 8 + 1, "big"))
        bindings = element(SEQUENCE, element(SEQUENCE, name, value))
        pdu = element(REPORT, integer(0), integer(0), integer(0), bindings)
        signed = self._signed_only(keys) if keys else localize(_NOBODY, self.engine_id)
        scoped = scope(self.engine_id, "", pdu)
        return seal_message(signed, message.message_id, self.boots, self.time, scoped, is_reportable=False)

    def _signed_only(self, keys: UsmKeys) -> UsmKeys:
        user = UsmUser(keys.user.name, keys.user.auth_protocol, keys.user.auth_password)
        return localize(user, self.engine_id)


def open_engine(path: Path, users: Mapping[str, Sequence[UsmUser]]) -> SnmpEngine:
    """The engine whose id and boots ``path`` keeps; it boots once more, and is made where there is none.

    Raises:
        ConfigurationError: the file cannot be read or written.
    """
    try:
        try:
            kept = json.loads(path.read_text())
            engine_id, boots = bytes.fromhex(kept["engine_id"]), int(kept["boots"])
        except FileNotFoundError:
            made = _PRIVATE_ENTERPRISE_NUMBER.to_bytes(4, "big") + b"\x05" + secrets.token_bytes(8)
            engine_id, boots = made, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({"engine_id": engine_id.hex(), "boots": boots + 1}))
        draft.replace(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: cannot keep the SNMP engine id: {error}; delete the file for a new engine, "
            "which senders of INFORMs discover again"
        ) from error
    return SnmpEngine(engine_id, boots + 1, users)
