"""Agents that answer from recordings or from fixed objects, fast: v1, v2c and v3, for tests and benchmarks.

Values are encoded once; an answer is a concatenation of octets. ``python -m pipelines.simulate.snmp_recorded FILE``
serves a recording (a line an object: ``OID|tag|value``, the tag an ASN.1 number, ``x`` behind it for hexadecimal).
"""

import argparse
import asyncio
import bz2
import random
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from resources.errors import ConfigurationError
from resources.snmp_ber import (
    NULL,
    OBJECT_IDENTIFIER,
    SEQUENCE,
    decode_oid,
    element,
    integer,
    object_identifier,
    octets,
    read_element,
    read_integer,
    read_octets,
    read_tagged,
    sub_identifiers,
)
from resources.snmp_usm import UsmUser, localize, open_message, parse_message, scope, seal_message

MAX_BYTES = 65_000
"""Octets of the largest answer, unless told otherwise."""

_GET, _NEXT, _RESPONSE, _BULK, _REPORT = 0xA0, 0xA1, 0xA2, 0xA5, 0xA8
_TOO_BIG, _NO_SUCH_NAME = 1, 2
_NO_SUCH_OBJECT, _END_OF_MIB_VIEW = element(0x80), element(0x82)
_OCTETS, _OID, _IP_ADDRESS, _OPAQUE = 0x04, 0x06, 0x40, 0x44
_NUMBERS = (0x02, 0x41, 0x42, 0x43, 0x46)
_HEADROOM = 120


class Recorded(NamedTuple):
    """An object: its OID, the tag of its value and the content octets."""

    oid: str
    tag: int
    content: bytes


def read_recording(path: Path) -> list[Recorded]:
    """The objects of a recording, ``.bz2`` or plain; lines that are empty or begin with ``#`` are left out.

    Raises:
        ConfigurationError: a line that is no object.
    """
    raw = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    found = []
    for number, line in enumerate(raw.decode("latin-1").split("\n"), 1):
        line = line.rstrip("\r")
        if not line or line.startswith("#"):
            continue
        try:
            found.append(_recorded(line))
        except ValueError as error:
            raise ConfigurationError(f"{path} line {number}: {error}") from error
    return found


def _recorded(line: str) -> Recorded:
    """``4:writecache|value=...`` and ``2:numeric|initial=...`` are what a variation of the value starts with."""
    oid, kind, text = line.split("|", 2)
    kind, _, variation = kind.partition(":")
    if variation:
        options = dict(option.split("=", 1) for option in text.split(",") if "=" in option)
        text = options.get("value", options.get("initial", options.get("min", "0")))
    tag = int(kind.removesuffix("x"))
    if kind.endswith("x"):
        return Recorded(oid, tag, bytes.fromhex(text))
    if tag in _NUMBERS:
        return Recorded(oid, tag, integer(int(text))[2:])
    if tag == _OID:
        return Recorded(oid, tag, _content(object_identifier(text.lstrip("."))))
    if tag == _IP_ADDRESS:
        return Recorded(oid, tag, bytes(map(int, text.split("."))))
    if tag in (_OCTETS, _OPAQUE, NULL):
        return Recorded(oid, tag, text.encode("latin-1"))
    raise ValueError(f"tag {kind!r} is not known")


def _content(encoded: bytes) -> bytes:
    return encoded[read_element(encoded, 0, len(encoded))[1] :]


class RecordedMib:
    """Objects in OID order, each encoded as the variable binding that answers."""

    def __init__(self, objects: Iterable[Recorded]) -> None:
        encoded = {
            sub_identifiers(each.oid): element(SEQUENCE, object_identifier(each.oid), element(each.tag, each.content))
            for each in objects
        }
        self._order = sorted(encoded)
        self._bindings = [encoded[oid] for oid in self._order]
        self._by_oid = encoded

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._order)

    def get(self, oid: tuple[int, ...]) -> bytes | None:
        """The binding of an object."""
        return self._by_oid.get(oid)

    def after(self, oid: tuple[int, ...], count: int) -> list[bytes]:
        """The bindings of the next ``count`` objects, fewer at the end."""
        at = bisect_right(self._order, oid)
        return self._bindings[at : at + count]

    def oid_after(self, oid: tuple[int, ...], count: int) -> tuple[int, ...] | None:
        """The OID of the last of the next ``count`` objects."""
        at = bisect_right(self._order, oid) + count - 1
        return self._order[at] if at < len(self._order) else None


class RecordedAgent:
    """Answers datagrams from a MIB: to one community, and to users at its own engine. It keeps no state of requests."""

    def __init__(
        self,
        mib: RecordedMib,
        *,
        community: bytes = b"public",
        users: Sequence[UsmUser] = (),
        engine_id: bytes = b"\x80\x00\x7e\xd9\x04recorded",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.answered = 0
        self._mib, self._community, self._engine_id, self._most = mib, community, engine_id, max_bytes
        self._users: Mapping[bytes, UsmUser] = {user.name.encode(): user for user in users}
        self._started = time.monotonic()

    def answer(self, datagram: bytes) -> bytes | None:
        """Returns the response to a request, or a report; None for what is not for us."""
        with suppress(ValueError):
            at, end = read_tagged(datagram, 0, len(datagram), SEQUENCE)
            version, at = read_integer(datagram, at, end)
            if version == 3:
                return self._answer_v3(datagram)
            community, at = read_octets(datagram, at, end)
            if community == self._community and version in (0, 1):
                pdu = self._respond(datagram, at, end, is_v1=version == 0)
                self.answered += 1
                return element(SEQUENCE, integer(version), octets(community), pdu)
        return None

    def _answer_v3(self, datagram: bytes) -> bytes:
        message = parse_message(datagram)
        seconds = int(time.monotonic() - self._started)
        user = self._users.get(message.user)
        if message.engine_id != self._engine_id or user is None:
            counter = 4 if message.engine_id != self._engine_id else 3
            name = object_identifier(f"1.3.6.1.6.3.15.1.1.{counter}.0")
            body = element(SEQUENCE, element(SEQUENCE, name, element(0x41, b"\x01")))
            report = element(_REPORT, integer(0), integer(0), integer(0), body)
            nobody = localize(UsmUser(""), self._engine_id)
            scoped = scope(self._engine_id, "", report)
            return seal_message(nobody, message.message_id, 1, seconds, scoped, is_reportable=False)
        keys = localize(user, self._engine_id)
        request = open_message(message, keys)
        pdu = self._respond(request.data, request.at, request.end, is_v1=False)
        self.answered += 1
        scoped = scope(self._engine_id, request.context.decode(), pdu)
        return seal_message(keys, message.message_id, 1, seconds, scoped, is_reportable=False)

    def _respond(self, data: bytes, at: int, end: int, *, is_v1: bool) -> bytes:
        tag, at, end = read_element(data, at, end)
        request_id, at = read_integer(data, at, end)
        first, at = read_integer(data, at, end)
        second, at = read_integer(data, at, end)
        begin, stop = read_tagged(data, at, end, SEQUENCE)
        oids = list(_names(data, begin, stop))
        if tag == _GET:
            found = [self._got(oid) for oid in oids]
        elif tag == _NEXT:
            found = [self._bulk([oid], 1)[0] for oid in oids]
        elif tag == _BULK and not is_v1:
            found = [self._bulk([oid], 1)[0] for oid in oids[:first]] + self._bulk(oids[first:], second)
        else:
            raise ValueError(f"PDU with the tag 0x{tag:02x}")
        missing = next((i for i, each in enumerate(found, 1) if each[-2] & 0xF0 == 0x80 and each[-1] == 0), 0)
        if is_v1 and missing:
            return _pdu(request_id, _NO_SUCH_NAME, missing, [data[begin:stop]])
        fitting = _fitting(found, self._most)
        if len(fitting) < len(found) and (tag != _BULK or not fitting):
            return _pdu(request_id, _TOO_BIG, 0, [])
        return _pdu(request_id, 0, 0, fitting)

    def _got(self, oid: tuple[int, ...]) -> bytes:
        found = self._mib.get(oid)
        return found or element(SEQUENCE, object_identifier(".".join(map(str, oid))), _NO_SUCH_OBJECT)

    def _bulk(self, oids: Sequence[tuple[int, ...]], count: int) -> list[bytes]:
        """``count`` repetitions (RFC 3416 section 4.2.3); one column is a slice."""
        columns = []
        for oid in oids:
            rows = self._mib.after(oid, count)
            if len(rows) < count:
                last = (self._mib.oid_after(oid, len(rows)) if rows else None) or oid
                rows = [*rows, element(SEQUENCE, object_identifier(".".join(map(str, last))), _END_OF_MIB_VIEW)]
            columns.append(rows)
        if len(columns) == 1:
            return columns[0]
        return [
            column[min(row, len(column) - 1)] for row in range(max(map(len, columns), default=0)) for column in columns
        ]


def _names(data: bytes, at: int, end: int) -> Iterator[tuple[int, ...]]:
    while at < end:
        begin, at = read_tagged(data, at, end, SEQUENCE)
        name, name_end = read_tagged(data, begin, at, OBJECT_IDENTIFIER)
        yield sub_identifiers(decode_oid(data[name:name_end]))


def _fitting(bindings: list[bytes], most: int) -> list[bytes]:
    size = _HEADROOM
    for count, binding in enumerate(bindings):
        size += len(binding)
        if size > most:
            return bindings[:count]
    return bindings


def _pdu(request_id: int, status: int, index: int, bindings: Iterable[bytes]) -> bytes:
    return element(_RESPONSE, integer(request_id), integer(status), integer(index), element(SEQUENCE, *bindings))


class RecordedEndpoint(asyncio.DatagramProtocol):
    """An agent on a socket; ``drop`` is the share of requests that it leaves unanswered."""

    def __init__(self, agent: RecordedAgent, drop: float = 0.0) -> None:
        self._agent, self._drop = agent, drop
        self._random = random.Random(0)

    def connection_made(self, transport: Any) -> None:
        """Keeps the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answers."""
        if (not self._drop or self._random.random() >= self._drop) and (answer := self._agent.answer(data)):
            self._transport.sendto(answer, addr)


async def _serve(agent: RecordedAgent, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: RecordedEndpoint(agent), local_addr=(host, port))
    sys.stdout.write(f"listening on {host}:{transport.get_extra_info('sockname')[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main(arguments: list[str] | None = None) -> int:
    """Serves a recording until it is interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.simulate.snmp_recorded", description=__doc__)
    parser.add_argument("recording", type=Path, help="file of OID|tag|value lines, .bz2 or plain")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="UDP port; 0 is a free one")
    options = parser.parse_args(arguments)
    try:
        agent = RecordedAgent(RecordedMib(read_recording(options.recording)))
        asyncio.run(_serve(agent, options.host, options.port))
    except (ConfigurationError, OSError) as error:
        sys.stderr.write(f"snmp_recorded: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
