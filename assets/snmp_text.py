"""How SNMP values are shown: text of octets and numbers by their textual convention (RFC 2579 section 3.1).

A *form* says how: ``bits``, ``date`` (DateAndTime), ``inet`` (InetAddress), else a DISPLAY-HINT; None where none is
known.
"""

import re
import unicodedata
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

BITS, DATE, INET = "bits", "date", "inet"
_TEXT_HINT = re.compile(r"\d+[at]")
_OCTET_SPECIFICATION = re.compile(r"(\*?)(\d+)([xdoat])([^\d*]?)([^\d*]?)")


def octets_text(value: bytes, form: str | None = None) -> str:
    """Text of an OCTET STRING in its form; without one, or where it does not fit: UTF-8 if it can be shown, else hex.

    A text hint (``255a``) drops the NULs that some agents send behind the text.
    """
    if not value:
        return ""
    if form == BITS:
        return f"0x{value.hex()}"
    if form and not _TEXT_HINT.fullmatch(form):
        shown = date_text(value) if form == DATE else inet_text(value) if form == INET else hinted_octets(value, form)
        if shown is not None:
            return shown
    return _plain(value.rstrip(b"\0") if form and _TEXT_HINT.fullmatch(form) else value)


def _plain(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
    return text if text.isprintable() or all(map(_can_be_shown, text)) else f"0x{value.hex()}"


def _can_be_shown(character: str) -> bool:
    return character in "\t\r\n" or unicodedata.category(character)[0] != "C"


def date_text(value: bytes) -> str | None:
    """A DateAndTime in ISO 8601, with its offset from UTC if it has one; None if it is no date."""
    if len(value) not in (8, 11):
        return None
    zone = None
    if len(value) == 11:
        if value[8:9] not in (b"+", b"-") or value[9] > 13 or value[10] > 59:
            return None
        offset = timedelta(hours=value[9], minutes=value[10])
        zone = timezone(offset if value[8:9] == b"+" else -offset)
    try:
        month, day, hour, minute, second, tenth = value[2:8]
        # A leap second is 60.
        time = datetime(
            int.from_bytes(value[:2], "big"), month, day, hour, minute, min(second, 59), tenth * 100_000, tzinfo=zone
        )
    except ValueError:
        return None
    return time.isoformat(timespec="milliseconds")


def inet_text(value: bytes) -> str | None:
    """An InetAddress by its length (RFC 4001): 4 or 16 octets, with a zone 8 or 20; None for others (a DNS name)."""
    address, zone = (value[:-4], value[-4:]) if len(value) in (8, 20) else (value, b"")
    if len(address) not in (4, 16):
        return None
    text = ".".join(map(str, address)) if len(address) == 4 else str(IPv6Address(address))
    return f"{text}%{int.from_bytes(zone, 'big')}" if zone else text


class _Specification(NamedTuple):
    """One octet-format specification of a DISPLAY-HINT."""

    is_repeated: bool
    length: int
    display: str
    separator: str
    terminator: str


@lru_cache(maxsize=1024)
def _specifications(hint: str) -> tuple[_Specification, ...]:
    """The parts of a hint for octets; none if it is no such hint."""
    found, at = [], 0
    while at < len(hint):
        part = _OCTET_SPECIFICATION.match(hint, at)
        if part is None:
            return ()
        star, length, display, separator, terminator = part.groups()
        end = part.end() if star else part.end(4)
        found.append(_Specification(bool(star), int(length), display, separator, terminator if star else ""))
        at = end
    return tuple(found) if all(part.length for part in found[-1:]) else ()


def hinted_octets(value: bytes, hint: str) -> str | None:
    """Octets by a DISPLAY-HINT; None if it is no hint for octets. Hex is two digits an octet."""
    specifications = _specifications(hint)
    if not specifications:
        return None
    text, rest, number = "", value, 0
    while rest:
        part = specifications[min(number, len(specifications) - 1)]
        number += 1
        count, rest = (rest[0], rest[1:]) if part.is_repeated else (1, rest)
        for turn in range(count):
            taken, rest = rest[: part.length], rest[part.length :]
            text += _shown(taken, part.display)
            is_last = turn == count - 1
            if rest:
                text += part.terminator if is_last and part.terminator else part.separator
    return text


def _shown(octets: bytes, display: str) -> str:
    if display in "at":
        return _plain(octets)
    number = int.from_bytes(octets, "big")
    if display == "x":
        return octets.hex()
    return str(number) if display == "d" else format(number, "o")


def hinted_integer(number: int, hint: str | None) -> str | None:
    """A number by a DISPLAY-HINT: ``d``, ``d-N`` (N decimals), ``x``, ``o``, ``b``; None if it is none for numbers."""
    if hint in ("x", "o", "b"):
        return format(number, hint)
    decimals = re.fullmatch(r"d(?:-(\d{1,2}))?", hint or "")
    if not decimals:
        return None
    places = int(decimals[1] or 0)
    digits = str(abs(number)).rjust(places + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def bit_names(value: bytes, labels: dict[str, str]) -> str | None:
    """Names of the bits that are set, comma between, bit 0 first (RFC 2578 section 7.1.4); unnamed ones by number."""
    numbers = [8 * i + bit for i, octet in enumerate(value) for bit in range(8) if octet & 0x80 >> bit]
    return ",".join(labels.get(str(number), str(number)) for number in numbers) or None
