"""Answers SNMP v2c requests from a table of objects (RFC 3416); knows no socket and no clock."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error
from pysnmp.proto.api import v2c

from pipelines.simulate.snmp_devices import Objects, ObjectValue
from resources.errors import ConfigurationError

COMMUNITY = b"public"
# The UDP payload of one Ethernet frame; a longer GETBULK answer is cut, as agents do (RFC 3416, section 4.2.3).
MAX_BYTES = 1472
_MAX_REPETITIONS = 128
_VERSION_2C = 1
_TOO_BIG = 1
_WIDTHS = {"Counter32": 2**32, "Counter64": 2**64, "TimeTicks": 2**32}
_EXCEPTIONS = (v2c.NoSuchObject, v2c.NoSuchInstance, v2c.EndOfMibView)
_WIRE_TYPES = frozenset(
    ("Integer32", "OctetString", "ObjectIdentifier", "IpAddress", "Counter32", "Gauge32", "TimeTicks", "Counter64")
)

Oid = tuple[int, ...]


class Binding(NamedTuple):
    """One variable binding of a response; ``requested`` is the OID of the request that it answers."""

    requested: Oid
    oid: Oid
    value: Any


class Answer(NamedTuple):
    """An encoded response; ``oids`` has (requested, answered) of each value in it, exceptions left out."""

    payload: bytes
    request_id: int
    oids: tuple[tuple[str, str], ...]


class Mib:
    """A table of objects in OID order.

    Without the MIB module, an object's name is taken to be an OID less its last sub-id: right for scalars and for
    tables with a one-integer index.

    Raises:
        ConfigurationError: an object has an unknown wire type.
    """

    def __init__(self, objects: Objects) -> None:
        for oid, (wire_type, _) in objects.items():
            if wire_type not in _WIRE_TYPES:
                raise ConfigurationError(f"object {oid}: wire type must be of {sorted(_WIRE_TYPES)}, got {wire_type!r}")
        self._objects = {
            tuple(int(part) for part in oid.strip(".").split(".")): entry for oid, entry in objects.items()
        }
        self._order = sorted(self._objects)
        self._names = {oid[:-1] for oid in self._order}

    def get(self, oid: Oid, t: float) -> Any:
        """The value at ``oid`` ``t`` seconds after boot, or noSuchInstance, or noSuchObject."""
        if (entry := self._objects.get(oid)) is not None:
            return _typed(*entry, t)
        is_known = any(oid[:length] in self._names for length in range(1, len(oid) + 1))
        return v2c.NoSuchInstance("") if is_known else v2c.NoSuchObject("")

    def after(self, oid: Oid, t: float) -> tuple[Oid, Any]:
        """The first OID after ``oid`` with its value, or ``oid`` with endOfMibView."""
        position = bisect_right(self._order, oid)
        if position == len(self._order):
            return oid, v2c.EndOfMibView("")
        found = self._order[position]
        return found, _typed(*self._objects[found], t)

    def bulk(self, oids: Sequence[Oid], non_repeaters: int, repetitions: int, t: float) -> list[Binding]:
        """The variable bindings of a GETBULK, ended early once every repeated OID is past the end."""
        found = [Binding(oid, *self.after(oid, t)) for oid in oids[:non_repeaters]]
        row = [Binding(oid, oid, None) for oid in oids[non_repeaters:]]
        for _ in range(min(repetitions, _MAX_REPETITIONS) if row else 0):
            row = [Binding(last.requested, *self.after(last.oid, t)) for last in row]
            found += row
            if all(isinstance(binding.value, v2c.EndOfMibView) for binding in row):
                break
        return found


def answer(mib: Mib, datagram: bytes, t: float) -> Answer | None:
    """Returns the response to ``datagram``; None where it is no SNMP v2c request of our community."""
    try:
        message, rest = decoder.decode(datagram, asn1Spec=v2c.Message())
    except (PyAsn1Error, IndexError):
        # On a sequence with too many components pyasn1 lets an IndexError through.
        return None
    if rest or message[0] != _VERSION_2C or message[1].asOctets() != COMMUNITY:
        return None
    request = v2c.apiMessage.get_pdu(message)
    oids = [tuple(oid) for oid, _ in v2c.apiPDU.get_varbinds(request)]
    is_bulk = request.isSameTypeWith(v2c.GetBulkRequestPDU())
    if is_bulk:
        repetitions = int(v2c.apiBulkPDU.get_max_repetitions(request))
        found = mib.bulk(oids, int(v2c.apiBulkPDU.get_non_repeaters(request)), repetitions, t)
    elif request.isSameTypeWith(v2c.GetRequestPDU()):
        found = [Binding(oid, oid, mib.get(oid, t)) for oid in oids]
    elif request.isSameTypeWith(v2c.GetNextRequestPDU()):
        found = [Binding(oid, *mib.after(oid, t)) for oid in oids]
    else:
        return None
    return _fit(message, found, is_bulk)


def _fit(message: Any, found: list[Binding], is_bulk: bool) -> Answer:
    """Encodes the response, shortened until it fits; a GET that does not fit is answered tooBig."""
    request_id = int(v2c.apiPDU.get_request_id(v2c.apiMessage.get_pdu(message)))
    payload = _encoded(message, found)
    while len(payload) > MAX_BYTES:
        found = found[: len(found) * 3 // 4] if is_bulk else []
        payload = _encoded(message, found, 0 if is_bulk and found else _TOO_BIG)
    values = [binding for binding in found if not isinstance(binding.value, _EXCEPTIONS)]
    oids = tuple((_dotted(binding.requested), _dotted(binding.oid)) for binding in values)
    return Answer(payload, request_id, oids)


def _encoded(message: Any, found: list[Binding], status: int = 0) -> bytes:
    response = v2c.apiMessage.get_response(message)
    body = v2c.apiMessage.get_pdu(response)
    v2c.apiPDU.set_error_status(body, status)
    v2c.apiPDU.set_varbinds(body, [(binding.oid, binding.value) for binding in found])
    return bytes(encoder.encode(response))


def _typed(wire_type: str, value: ObjectValue, t: float) -> Any:
    now = value(t) if callable(value) else value
    if isinstance(now, int) and wire_type in _WIDTHS:
        now %= _WIDTHS[wire_type]
    return getattr(v2c, wire_type)(now)


def _dotted(oid: Oid) -> str:
    return ".".join(map(str, oid))
