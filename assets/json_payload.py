"""Payloads that should be JSON objects: parsed exactly, or rejected with a reason (RFC 8259)."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from assets.packed_payloads import is_msgpack_map, unpacked, unzipped
from assets.python_text import python_to_json
from assets.rejected import RejectedError

MAX_BYTES = 64 * 1024
"""A longer payload is no telemetry record."""
MAX_DEPTH = 32
"""Deeper nesting than this is refused before a recursive parser sees it."""

_QUOTED_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_SHOWN_CHARACTERS = 80
_MAX_INTEGER = 2**63 - 1


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def shown(value: Any) -> str:
    """A value as ASCII JSON text for a message, cut to 80 characters."""
    return _cut(json.dumps(value))


def _nesting(text: str) -> int:
    """How many brackets are open at once outside strings, counted no further than one past MAX_DEPTH."""
    depth = deepest = 0
    for match in _QUOTED_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif match[0] in "]}":
            depth -= 1
    return deepest


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique: RFC 8259 section 4 leaves open which of two equal names counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RejectedError("duplicate_field", f"field {shown(twice)} stands twice in one object; each may stand once")
    return found


def _check_text(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"payload holds half of a surrogate pair (\\u{ord(error.object[error.start]):04x}), which is no text"
        raise RejectedError("invalid_utf8", message) from error


def _load(text: str) -> Any:
    if text.count("[") + text.count("{") > MAX_DEPTH and _nesting(text) > MAX_DEPTH:
        raise RejectedError("too_deep", f"payload is nested more than {MAX_DEPTH} levels deep")
    try:
        document = json.loads(text, object_pairs_hook=_unique_names)
    except json.JSONDecodeError as error:
        near = _cut(text[max(0, error.pos - 20) : error.pos + 40].encode("unicode_escape").decode())
        message = f"payload is not JSON: {error.msg} at character {error.pos}, near {near}"
        raise RejectedError("invalid_json", message) from error
    except ValueError as error:  # Python refuses to read integers of more than 4,300 digits
        raise RejectedError("integer_out_of_range", f"payload holds a number with too many digits: {error}") from error
    if "\\u" in text:
        _check_text(document)
    return document


def _load_either(text: str) -> Any:
    """The value of JSON text, or of the text of a Python dict; what is neither is told as JSON is."""
    try:
        return _load(text)
    except RejectedError as error:
        as_json = python_to_json(text) if error.reason == "invalid_json" and text.lstrip().startswith("{") else None
        if as_json is None:
            raise
        try:
            return _load(as_json)
        except RejectedError as other:
            raise (error if other.reason == "invalid_json" else other) from other


def _check_size(payload: bytes) -> None:
    if len(payload) > MAX_BYTES:
        raise RejectedError("too_large", f"payload has {len(payload)} bytes; at most {MAX_BYTES} are accepted")


def payload_text(payload: bytes, kind: str = "a JSON object") -> str:
    """Returns a payload as text.

    Raises:
        RejectedError: empty_payload, too_large or invalid_utf8.
    """
    if not payload.strip():
        raise RejectedError("empty_payload", f"payload is empty; must be {kind}")
    _check_size(payload)
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"payload is not UTF-8: {error.reason} at byte {error.start}, got 0x{payload[error.start]:02x}"
        raise RejectedError("invalid_utf8", message) from error


def parse_object(payload: bytes) -> dict[str, Any]:
    """Returns the object that a payload holds: JSON, the text of a Python dict, or MessagePack; each also in gzip.

    NaN and Infinity come back as floats, for the caller to judge.

    Raises:
        RejectedError: with reason empty_payload, too_large, invalid_gzip, invalid_msgpack, invalid_utf8, too_deep,
            invalid_json, duplicate_field, wrong_type, integer_out_of_range or not_an_object.
    """
    payload = unzipped(payload, MAX_BYTES)
    if is_msgpack_map(payload):
        _check_size(payload)
        document = unpacked(payload, _unique_names, MAX_DEPTH)
    else:
        document = _load_either(payload_text(payload))
    if not isinstance(document, dict):
        raise RejectedError("not_an_object", f"payload must be a JSON object, got {shown(document)}")
    return document


def _required(field: str, value: Any, kind: str) -> None:
    if value is None:
        raise RejectedError("missing_field", f"{field} is missing; must be {kind}")


def _wrong_type(field: str, value: Any, kind: str) -> RejectedError:
    return RejectedError("wrong_type", f"{field} must be {kind}, got {shown(value)}")


def as_integer(field: str, value: Any, maximum: int = _MAX_INTEGER) -> int:
    """Returns an integer from -maximum to maximum; a number with a fraction or exponent, or a boolean, is none.

    Raises:
        RejectedError: missing_field, wrong_type or integer_out_of_range.
    """
    _required(field, value, "an integer")
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(field, value, "an integer")
    if not -maximum <= value <= maximum:
        raise RejectedError("integer_out_of_range", f"{field} must be at most {maximum} in size, got {shown(value)}")
    return value


def as_number(field: str, value: Any) -> float:
    """Returns a finite number as a float.

    Raises:
        RejectedError: missing_field, wrong_type or not_finite.
    """
    _required(field, value, "a number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(field, value, "a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise RejectedError("not_finite", f"{field} must be a finite number, got {shown(value)}")
    return found


def as_text(field: str, value: Any) -> str:
    """Returns a text.

    Raises:
        RejectedError: missing_field or wrong_type.
    """
    _required(field, value, "text")
    if not isinstance(value, str):
        raise _wrong_type(field, value, "text")
    return value


def as_object(field: str, value: Any) -> dict[str, Any]:
    """Returns an object.

    Raises:
        RejectedError: missing_field or wrong_type.
    """
    _required(field, value, "an object")
    if not isinstance(value, dict):
        raise _wrong_type(field, value, "an object")
    return value


def unknown_as_json(unknown: Mapping[str, Any]) -> str | None:
    """Returns fields that no column takes as JSON text, or None where there are none.

    Raises:
        RejectedError: not_finite where one holds NaN or an infinity, which JSON cannot say.
    """
    if not unknown:
        return None
    for field, value in unknown.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise RejectedError("not_finite", f"{field} must hold finite numbers, got {shown(value)}") from error
    return json.dumps(unknown, ensure_ascii=False, separators=(",", ":"))
