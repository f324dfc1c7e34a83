"""SNMP values: from BER content octets to text and numbers, and table instances to their INDEX (RFC 2578)."""

import math
import struct
import unicodedata
from collections.abc import Sequence

import polars as pl

from resources.snmp_ber import decode_oid

SIGNED = ("Integer32",)
UNSIGNED_32 = ("Counter32", "Gauge32", "TimeTicks")
COUNTERS = ("Counter32", "Counter64")
_UNSIGNED = (*UNSIGNED_32, "Counter64")
_OPAQUES = ("Opaque", "OpaqueFloat", "OpaqueDouble")
_OTHERS = ("OctetString", "ObjectIdentifier", "IpAddress", *_OPAQUES)
_NO_VALUE = {
    "noSuchObject": "no_such_object",
    "noSuchInstance": "no_such_instance",
    "noSuchName": "no_such_name",
    "endOfMibView": "end_of_mib_view",
    "Null": "null_value",
}
_TEXT_SYNTAXES = frozenset({"DisplayString", "SnmpAdminString", "InternationalDisplayString"})
_HEX_SYNTAXES = frozenset({"PhysAddress", "DateAndTime"})
# net-snmp's Opaque special types: tag 0x9f78 a float, 0x9f79 a double (draft-perkins-opaque-01).
_OPAQUE_FLOATS = {b"\x9f\x78\x04": (">f", ".7g"), b"\x9f\x79\x08": (">d", ".15g")}


def decode_values(varbinds: pl.DataFrame) -> pl.DataFrame:
    """Decodes the columns ``wire_type, value, syntax`` (SYNTAX of the object, or null).

    Adds ``metric_value``, ``numeric_value``, ``integer`` (Int64, Integer32 only), ``counter`` (UInt64, the two counters
    only), and, where there is no value, ``reason`` and ``message``. Rows keep their order.
    """
    return (
        varbinds.with_columns(_signed=_signed(), _unsigned=_unsigned())
        .join(
            _decode_others(varbinds),
            on=["wire_type", "value", "syntax"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        .with_columns(
            metric_value=pl.coalesce(pl.col("_signed", "_unsigned").cast(pl.String), "_text"),
            numeric_value=pl.coalesce(pl.col("_signed", "_unsigned").cast(pl.Float64), "_number"),
            integer="_signed",
            counter=pl.when(pl.col("wire_type").is_in(COUNTERS)).then("_unsigned"),
        )
        .with_columns(_reason())
        .with_columns(_message())
        .drop("_signed", "_unsigned", "_text", "_number")
    )


def _signed() -> pl.Expr:
    """Two's complement of 1 to 8 octets (X.690 section 8.3) that fits 32 bits."""
    octets = pl.col("value").bin.encode("hex")
    is_negative = octets.str.contains("^[89a-f]")
    widened = pl.when(is_negative).then(octets.str.pad_start(16, "f")).otherwise(octets.str.pad_start(16, "0"))
    size_fits = pl.col("value").bin.size().is_between(1, 8)
    number = _reinterpreted(pl.when(pl.col("wire_type").is_in(SIGNED) & size_fits).then(widened), pl.Int64)
    return pl.when(number.is_between(-(2**31), 2**31 - 1)).then(number)


def _unsigned() -> pl.Expr:
    """Some agents leave out the zero octet before a set top bit, so the octets are read as unsigned."""
    digits = pl.col("value").bin.encode("hex").str.strip_chars_start("0")
    most = pl.when(pl.col("wire_type").is_in(UNSIGNED_32)).then(8).otherwise(16)
    is_known = pl.col("wire_type").is_in(_UNSIGNED) & (pl.col("value").bin.size() > 0)
    fits = is_known & (digits.str.len_bytes() <= most)
    return _reinterpreted(pl.when(fits).then(digits.str.pad_start(16, "0")), pl.UInt64)


def _reinterpreted(digits: pl.Expr, dtype: type[pl.DataType]) -> pl.Expr:
    return digits.str.decode("hex").bin.reinterpret(dtype=dtype, endianness="big")


def _reason() -> pl.Expr:
    wire_type = pl.col("wire_type")
    is_known = wire_type.is_in([*SIGNED, *_UNSIGNED, *_OTHERS])
    return (
        pl.when(pl.col("metric_value").is_null())
        .then(
            pl.coalesce(
                wire_type.replace_strict(_NO_VALUE, default=None, return_dtype=pl.String),
                pl.when(is_known).then(pl.lit("undecodable_value")).otherwise(pl.lit("unknown_wire_type")),
            )
        )
        .alias("reason")
    )


def _message() -> pl.Expr:
    octets = pl.col("value").bin.slice(0, 32).bin.encode("hex")
    value = pl.format("holds no value: {} of the octets 0x{}", pl.col("wire_type"), octets)
    answered = pl.format("was answered with {}", pl.col("wire_type"))
    has_answer = pl.col("reason").is_in([*_NO_VALUE.values()])
    return (
        pl.when(pl.col("reason").is_not_null())
        .then(pl.when(has_answer).then(answered).otherwise(value))
        .alias("message")
    )


def _decode_others(varbinds: pl.DataFrame) -> pl.DataFrame:
    """Text and number of the distinct values that are no integers: polls bring the same ones again and again."""
    columns = ("wire_type", "value", "syntax")
    distinct = varbinds.select(columns).filter(pl.col("wire_type").is_in(_OTHERS)).unique()
    decoded = [_decode_other(*row) for row in distinct.iter_rows()]
    return distinct.with_columns(
        _text=pl.Series([text for text, _ in decoded], dtype=pl.String),
        _number=pl.Series([number for _, number in decoded], dtype=pl.Float64),
    )


def _decode_other(wire_type: str, value: bytes, syntax: str | None) -> tuple[str | None, float | None]:
    if wire_type == "OctetString":
        return octets_text(value, syntax), None
    if wire_type == "IpAddress":
        return (".".join(map(str, value)), None) if len(value) == 4 else (None, None)
    if wire_type in _OPAQUES:
        return _opaque(value)
    try:
        return decode_oid(value), None
    except ValueError:
        return None, None


def _opaque(value: bytes) -> tuple[str | None, float | None]:
    """An Opaque holds a BER element (RFC 2578 section 7.1.9); net-snmp's floats are read, others are shown in hex."""
    layout, precision = _OPAQUE_FLOATS.get(value[:3], ("", ""))
    if not layout or len(value) != 3 + struct.calcsize(layout):
        return f"0x{value.hex()}" if value else None, None
    (number,) = struct.unpack(layout, value[3:])
    return format(number, precision), number if math.isfinite(number) else None


def octets_text(value: bytes, syntax: str | None = None) -> str:
    """Text of an OCTET STRING: UTF-8 if all of it can be shown, else ``0x`` and hex.

    A text ``syntax`` drops the NULs that some agents send behind it; an address is always hex.
    """
    if syntax in _HEX_SYNTAXES:
        return f"0x{value.hex()}" if value else ""
    try:
        text = (value.rstrip(b"\0") if syntax in _TEXT_SYNTAXES else value).decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
    return text if text.isprintable() or all(map(_can_be_shown, text)) else f"0x{value.hex()}"


def _can_be_shown(character: str) -> bool:
    return character in "\t\r\n" or unicodedata.category(character)[0] != "C"


def decode_instance(sub_identifiers: Sequence[int], kinds: Sequence[str]) -> str | None:
    """Text of a row's INDEX values, comma between; None if it is no such INDEX (RFC 2578 section 7.7).

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


_LENGTH_BEFORE = ("string", "octets", "oid")


def _length(kind: str, rest: Sequence[int]) -> int | None:
    """How many sub-identifiers an INDEX value takes, its length included."""
    if kind in _LENGTH_BEFORE:
        return 1 + rest[0] if rest else None
    if kind.startswith("fixed_string/"):
        return int(kind.removeprefix("fixed_string/"))
    return {"integer": 1, "ipaddress": 4, "implied_string": len(rest), "implied_oid": len(rest)}.get(kind)


def _index_text(kind: str, taken: Sequence[int]) -> str | None:
    if kind in ("integer", "oid", "implied_oid"):
        return ".".join(map(str, taken))
    if any(octet > 255 for octet in taken):
        return None
    if kind == "ipaddress":
        return ".".join(map(str, taken))
    return octets_text(bytes(taken), "PhysAddress" if kind == "octets" else None)
