"""What payloads come packed in: gzip (RFC 1952) and MessagePack, told apart by their first bytes, with limits."""

import zlib
from collections.abc import Callable
from typing import Any

import msgpack

from assets.rejected import RejectedError

_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way of saying: gzip alone
_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))


def unzipped(payload: bytes, most: int) -> bytes:
    """What a gzip payload holds; any other payload as it is. No more than ``most`` bytes are ever unpacked.

    Raises:
        RejectedError: invalid_gzip or too_large.
    """
    if payload[:2] != _GZIP:
        return payload
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        found = unpacker.decompress(payload, most + 1)
    except zlib.error as error:
        raise RejectedError("invalid_gzip", f"payload is no gzip: {error}") from error
    if len(found) > most:
        raise RejectedError("too_large", f"payload unpacks to more than {most} bytes, which is the most accepted")
    if not unpacker.eof or unpacker.unused_data:
        what = "is not whole" if not unpacker.eof else "has bytes behind its end"
        raise RejectedError("invalid_gzip", f"payload is no gzip: it {what}")
    return found


def is_msgpack_map(payload: bytes) -> bool:
    """Whether a payload that must be an object is a MessagePack map: no JSON text starts with such a byte."""
    return payload[:1] != b"" and payload[0] in _MAPS


def unpacked(payload: bytes, pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]], most_depth: int) -> Any:
    """The value of a MessagePack payload, made of what JSON can say and of floats that are not finite.

    Raises:
        RejectedError: invalid_msgpack, too_deep or wrong_type, and what ``pairs`` raises.
    """
    try:
        document = msgpack.unpackb(payload, raw=False, strict_map_key=True, object_pairs_hook=pairs)
    except (ValueError, msgpack.UnpackException) as error:
        raise RejectedError("invalid_msgpack", f"payload is no MessagePack: {error or type(error).__name__}") from error
    _check(document, most_depth)
    return document


def _check(value: Any, most_depth: int) -> None:
    if isinstance(value, dict | list):
        if not most_depth:
            raise RejectedError("too_deep", "payload is nested too deep")
        for part in value.values() if isinstance(value, dict) else value:
            _check(part, most_depth - 1)
        if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
            raise RejectedError("wrong_type", "payload has a map with a key that is no text")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise RejectedError("wrong_type", f"payload holds a value that JSON cannot say, of type {type(value).__name__}")
