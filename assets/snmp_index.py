"""Table instances: from the sub-identifiers behind a column to the values of its INDEX (RFC 2578 section 7.7)."""

from collections.abc import Sequence

from assets.snmp_text import INET, octets_text

_LENGTH_BEFORE = ("string", "octets", "oid", "inetaddress")
_FORMS = {"octets": "1x:", "inetaddress": INET}


def decode_instance(sub_identifiers: Sequence[int], kinds: Sequence[str]) -> str | None:
    """Text of a row's INDEX values, comma between; None if it is no such INDEX.

    ``kinds`` are those of ``reference.mib_objects.index_columns``.
    """
    rest, texts = list(sub_identifiers), []
    for kind in kinds:
        length = _length(kind, rest)
        if length is None or length > len(rest):
            return None
        taken, rest = rest[:length], rest[length:]
        if kind in _LENGTH_BEFORE:
            taken = taken[1:]
        text = _index_text(kind, taken)
        if text is None:
            return None
        texts.append(text)
    return ",".join(texts) if texts and not rest else None


def _length(kind: str, rest: Sequence[int]) -> int | None:
    """How many sub-identifiers an INDEX value takes, its length included."""
    if kind in _LENGTH_BEFORE:
        return 1 + rest[0] if rest else None
    if kind.startswith("fixed_"):
        return int(kind.partition("/")[2])
    if kind.startswith("implied_"):
        return len(rest)
    return {"integer": 1, "ipaddress": 4}.get(kind)


def _index_text(kind: str, taken: Sequence[int]) -> str | None:
    what = kind.removeprefix("implied_").removeprefix("fixed_").partition("/")[0]
    if what in ("integer", "oid"):
        return ".".join(map(str, taken))
    if any(octet > 255 for octet in taken):
        return None
    if what == "ipaddress":
        return ".".join(map(str, taken))
    return octets_text(bytes(taken), _FORMS.get(what))
