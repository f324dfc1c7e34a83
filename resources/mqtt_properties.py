"""The properties of a PUBLISH in MQTT 5 (section 3.3.2.3), of which an application may want to know."""

import json
from functools import lru_cache
from typing import Any

_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION_DATA, _USER = 0x03, 0x08, 0x09, 0x26
_TEXTS = {_CONTENT_TYPE: "content_type", _RESPONSE_TOPIC: "response_topic"}
_OCTETS = {0x01: 1, 0x02: 4, 0x23: 2}
"""Payload format indicator, message expiry interval, topic alias: they end with the delivery."""
_SUBSCRIPTION = 0x0B


_KNOWN, _KNOWN_OCTETS = 1024, 256
"""How many lists of properties are remembered, and how long one may be: a sender mostly sends the same ones."""


def properties_text(data: bytes) -> str | None:
    """A JSON object: ``user``, ``content_type``, ``response_topic``, ``correlation_data`` in hex; None without any.

    In ``user`` a name that stands more than once has a list of its values. What is no such list of properties is kept
    as ``malformed``, in hex: the message is none the worse for it.
    """
    return _known_text(data) if len(data) <= _KNOWN_OCTETS else _text_of(data)


def _text_of(data: bytes) -> str | None:
    try:
        found = _properties(data)
    except (IndexError, ValueError):
        found = {"malformed": data.hex()}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")) if found else None


_known_text = lru_cache(_KNOWN)(_text_of)


def _properties(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    user: dict[str, list[str]] = {}
    at = 0
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == _USER:
            name, at = _field(data, at)
            value, at = _field(data, at)
            user.setdefault(_text(name), []).append(_text(value))
        elif kind == _CORRELATION_DATA:
            value, at = _field(data, at)
            found["correlation_data"] = value.hex()
        elif kind in _TEXTS:
            value, at = _field(data, at)
            found[_TEXTS[kind]] = _text(value)
        elif kind == _SUBSCRIPTION:
            while data[at] & 0x80:
                at += 1
            at += 1
        elif kind in _OCTETS:
            at += _OCTETS[kind]
        else:
            raise ValueError(f"a PUBLISH has no property 0x{kind:02x}")
    if at > len(data):
        raise ValueError("the last property is cut off")
    if user:
        found["user"] = {name: values if len(values) > 1 else values[0] for name, values in user.items()}
    return found


def _field(data: bytes, at: int) -> tuple[bytes, int]:
    """The octets behind a length of two octets, and where they end."""
    end = at + 2 + (data[at] << 8 | data[at + 1])
    if end > len(data):
        raise ValueError("a property is cut off")
    return data[at + 2 : end], end


def _text(octets: bytes) -> str:
    return octets.decode(errors="backslashreplace")
