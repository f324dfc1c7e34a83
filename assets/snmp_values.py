"""SNMP values: from BER content octets to text and numbers (RFC 2578 section 7)."""

import math
import struct

import numpy as np
import polars as pl
import pyarrow as pa

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
_MOST_OCTETS = 16  # of a number, leading zeros included
# net-snmp's Opaque special types: tag 0x9f78 a float, 0x9f79 a double (draft-perkins-opaque-01).
_OPAQUE_FLOATS = {b"\x9f\x78\x04": (">f", ".7g"), b"\x9f\x79\x08": (">d", ".15g")}


def decode_values(varbinds: pl.DataFrame) -> pl.DataFrame:
    """Decodes the columns ``wire_type, value, form`` (how the object's value is shown: see ``assets.snmp_text``).

    Adds ``metric_value``, ``numeric_value``, ``integer`` (Int64, Integer32 only), ``counter`` (UInt64, the two counters
    only), and, where there is no value, ``reason``; ``no_value_message`` tells of it. Rows keep their order.
    """
    wire_type = pl.col("wire_type")
    signed, unsigned = _integers(varbinds["value"])
    is_short = wire_type.is_in(UNSIGNED_32)
    text, number = _others(varbinds)
    return (
        varbinds.with_columns(_signed=signed, _unsigned=unsigned, _text=text, _number=number)
        .with_columns(
            _signed=pl.when(wire_type.is_in(SIGNED) & pl.col("_signed").is_between(-(2**31), 2**31 - 1)).then(
                "_signed"
            ),
            _unsigned=pl.when(wire_type.is_in(_UNSIGNED) & ~(is_short & (pl.col("_unsigned") >= 2**32))).then(
                "_unsigned"
            ),
        )
        .with_columns(
            metric_value=pl.coalesce("_text", pl.col("_signed").cast(pl.String), pl.col("_unsigned").cast(pl.String)),
            numeric_value=pl.coalesce(pl.col("_signed", "_unsigned").cast(pl.Float64), "_number"),
            integer="_signed",
            counter=pl.when(wire_type.is_in(COUNTERS)).then("_unsigned"),
        )
        .with_columns(_reason())
        .drop("_signed", "_unsigned", "_text", "_number")
    )


def _integers(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Each value's octets as two's complement (X.690 section 8.3), and as a number without sign; null where too long.

    Some agents leave out the zero octet before a set top bit of an unsigned number, and others send more of them.
    """
    array = values.rechunk().to_arrow().cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
    octets = np.frombuffer(array.buffers()[2] or b"\0", np.uint8)
    begins, ends = offsets[:-1], offsets[1:]
    lengths = ends - begins
    number, excess = np.zeros(len(array), np.uint64), np.zeros(len(array), bool)
    for place in range(min(int(lengths.max(initial=0)), _MOST_OCTETS)):
        has = lengths > place
        octet = np.where(has, octets[np.where(has, ends - 1 - place, 0)], 0)
        if place < 8:
            number |= octet.astype(np.uint64) << np.uint64(8 * place)
        else:
            excess |= octet != 0
    is_negative = (lengths > 0) & (octets[np.where(lengths > 0, begins, 0)] >= 0x80)
    # Shifting by 64 bits is not defined: a number of 8 octets has no bits above it.
    above = np.uint64(8) * lengths.clip(0, 7).astype(np.uint64)
    extension = np.where(is_negative & (lengths < 8), ~np.uint64(0) << above, np.uint64(0))
    signed = pl.Series((number | extension).view(np.int64))
    sizes = pl.Series(lengths)
    fits = pl.Series(~excess) & sizes.is_between(1, _MOST_OCTETS)
    return _where(sizes.is_between(1, 8), signed), _where(fits, pl.Series(number))


def _where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values)).to_series()


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


def no_value_message() -> pl.Expr:
    """What is told of a row with a ``reason``."""
    octets = pl.col("value").bin.slice(0, 32).bin.encode("hex")
    value = pl.format("holds no value: {} of the octets 0x{}", pl.col("wire_type"), octets)
    answered = pl.format("was answered with {}", pl.col("wire_type"))
    return pl.when(pl.col("reason").is_in([*_NO_VALUE.values()])).then(answered).otherwise(value)


def _others(varbinds: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Text and number of the values that are no plain integers; null for the others."""
    columns = ("wire_type", "value", "form")
    is_hinted = pl.col("form").is_not_null() & (pl.col("form") != "d")
    wanted = pl.col("wire_type").is_in(_OTHERS) | (pl.col("wire_type").is_in([*SIGNED, *_UNSIGNED]) & is_hinted)
    rows = varbinds.select(columns).with_row_index("_at").filter(wanted)
    found = rows.join(_decoded_others(rows.select(columns).unique()), on=columns, how="left", nulls_equal=True)
    text, number = pl.Series([None], dtype=pl.String), pl.Series([None], dtype=pl.Float64)
    height = varbinds.height
    return (
        text.new_from_index(0, height).scatter(found["_at"], found["_text"]),
        number.new_from_index(0, height).scatter(found["_at"], found["_number"]),
    )


def _decoded_others(distinct: pl.DataFrame) -> pl.DataFrame:
    """Decodes each distinct value once: polls bring the same ones again and again."""
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
