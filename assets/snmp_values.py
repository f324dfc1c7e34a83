"""SNMP values: from BER content octets to text and numbers (RFC 2578 section 7)."""

import math
import struct

import polars as pl

from assets.snmp_text import hinted_integer, octets_text
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
# net-snmp's Opaque special types: tag 0x9f78 a float, 0x9f79 a double (draft-perkins-opaque-01).
_OPAQUE_FLOATS = {b"\x9f\x78\x04": (">f", ".7g"), b"\x9f\x79\x08": (">d", ".15g")}


def decode_values(varbinds: pl.DataFrame) -> pl.DataFrame:
    """Decodes the columns ``wire_type, value, form`` (how the object's value is shown: see ``assets.snmp_text``).

    Adds ``metric_value``, ``numeric_value``, ``integer`` (Int64, Integer32 only), ``counter`` (UInt64, the two counters
    only), and, where there is no value, ``reason`` and ``message``. Rows keep their order.
    """
    return (
        varbinds.with_columns(_signed=_signed(), _unsigned=_unsigned())
        .join(
            _decode_others(varbinds),
            on=["wire_type", "value", "form"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        .with_columns(
            metric_value=pl.coalesce("_text", pl.col("_signed", "_unsigned").cast(pl.String)),
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
    """Text and number of the distinct values that are no plain integers: polls bring the same ones again and again."""
    columns = ("wire_type", "value", "form")
    is_hinted = pl.col("form").is_not_null() & (pl.col("form") != "d")
    wanted = pl.col("wire_type").is_in(_OTHERS) | (pl.col("wire_type").is_in([*SIGNED, *_UNSIGNED]) & is_hinted)
    distinct = varbinds.select(columns).filter(wanted).unique()
    decoded = [_decode_other(*row) for row in distinct.iter_rows()]
    return distinct.with_columns(
        _text=pl.Series([text for text, _ in decoded], dtype=pl.String),
        _number=pl.Series([number for _, number in decoded], dtype=pl.Float64),
    )


def _decode_other(wire_type: str, value: bytes, form: str | None) -> tuple[str | None, float | None]:
    if wire_type == "OctetString":
        return octets_text(value, form), None
    if wire_type == "IpAddress":
        return (".".join(map(str, value)), None) if len(value) == 4 else (None, None)
    if wire_type in _OPAQUES:
        return _opaque(value)
    if wire_type == "ObjectIdentifier":
        try:
            return decode_oid(value), None
        except ValueError:
            return None, None
    # What does not fit its type has no number either, and is rejected for that.
    fits = 0 < len(value) <= (8 if wire_type in SIGNED else 9)
    return hinted_integer(int.from_bytes(value, "big", signed=wire_type in SIGNED), form) if fits else None, None


def _opaque(value: bytes) -> tuple[str | None, float | None]:
    """An Opaque holds a BER element (RFC 2578 section 7.1.9); net-snmp's floats are read, others are shown in hex."""
    layout, precision = _OPAQUE_FLOATS.get(value[:3], ("", ""))
    if not layout or len(value) != 3 + struct.calcsize(layout):
        return f"0x{value.hex()}" if value else None, None
    (number,) = struct.unpack(layout, value[3:])
    return format(number, precision), number if math.isfinite(number) else None
