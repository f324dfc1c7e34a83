"""Flat JSON objects whose names are not known beforehand: a few fixed members, every other one a number.

The objects of a batch have few distinct sets of names. Those are looked at one by one; the values are read by DuckDB,
all at once.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl

from assets.json_payload import MAX_BYTES
from assets.payload_texts import SPACE, TEXT, ask, json_texts, member, members, whole

MOST_NAMES = 512
"""Objects with names beyond so many in a batch are left to the exact path."""

_CELLS = 40_000_000
_NAME = r"[A-Za-z_][A-Za-z0-9_.:/-]{0,99}"
# Minus zero is left out: as an integer it is 0, as a float it is not.
_NUMBER = r"(?:-?(?:0\.[0-9]{1,17}|[1-9][0-9]{0,14}(?:\.[0-9]{1,17})?)(?:[eE][+-]?[0-9]{1,2})?|0)"
_VALUE = rf":{SPACE}(?:{TEXT}|[-+.0-9eE]+)"


class Member(NamedTuple):
    """A fixed member: the pattern of its value, DuckDB's type of it, and whether every object has it."""

    pattern: str
    dtype: str
    is_required: bool = True


def flat_numbers(messages: pl.DataFrame, fixed: Mapping[str, Member]) -> pl.DataFrame:
    """Reads those ``messages`` (index, payload) that are flat objects of numbers and ``fixed`` members.

    Returns:
        One row a number: index, the fixed members, ``name`` (Enum) and ``value``. An object without a number, and what
        is left to the exact path, has none.
    """
    plain = _plain(messages, fixed)
    shapes = _shapes(plain["shape"], fixed)
    names = sorted({name for own in shapes.values() for name in own} - fixed.keys())
    counts = pl.DataFrame(
        {"shape": list(shapes), "names": [len(own) for own in shapes.values()]}, {"shape": pl.String, "names": pl.Int64}
    )
    known = plain.join(counts, on="shape", how="inner", maintain_order="left").drop("shape")
    rows = max(1, _CELLS // max(1, len(names)))
    slices = [_read(part, fixed, names) for part in known.iter_slices(rows)]
    return pl.concat(slices or [_read(known, fixed, names)])


def _plain(messages: pl.DataFrame, fixed: Mapping[str, Member]) -> pl.DataFrame:
    """Index, text and shape (the text without its values) of the objects that follow the grammar."""
    text = pl.col("text")
    own = {name: member(name, one.pattern) for name, one in fixed.items()}
    grammar = whole(members(*own.values(), member(_NAME, _NUMBER)))
    # A fixed name with a number of another pattern follows the grammar too. No text holds a quote, so that a quoted
    # name with a colon is the name of a member.
    is_right = [
        text.str.contains(rf"{own[name]}{SPACE}[,}}]")
        | ~(pl.lit(one.is_required) | text.str.contains(f'"{name}":', literal=True))
        for name, one in fixed.items()
    ]
    return (
        messages.lazy()
        .select("index", text=json_texts(messages["payload"]))
        .filter(text.str.len_bytes() <= MAX_BYTES, text.str.contains(grammar), *is_right)
        .with_columns(shape=text.str.replace_all(_VALUE, ":"))
        .collect(engine="streaming")
    )


def _shapes(shapes: pl.Series, fixed: Mapping[str, Member]) -> dict[str, list[str]]:
    """Shape → names, of the shapes that DuckDB reads rightly: it does not regard case, and takes one of equal names."""
    spelled = {name.casefold(): name for name in fixed}
    found: dict[str, list[str]] = {}
    for shape in shapes.value_counts(sort=True)["shape"]:
        names = re.findall(r'"([^"]*)":', shape)
        folded = {name.casefold(): name for name in names}
        is_sure = len(folded) == len(names) and all(spelled.get(f, name) == name for f, name in folded.items())
        if is_sure and len(spelled.keys() | folded.keys()) <= MOST_NAMES + len(fixed):
            spelled |= folded
            found[shape] = names
    return found


def _number(name: str) -> str:
    """The column of a number while it is read; no member's name has such a sign."""
    return f"={name}"


def _read(known: pl.DataFrame, fixed: Mapping[str, Member], names: list[str]) -> pl.DataFrame:
    structure = {name: one.dtype for name, one in fixed.items()} | dict.fromkeys(names, "DOUBLE")
    query = "select unnest(json_transform(payload, $structure), recursive := true) from messages"
    wide = ask(query, known["text"], structure=json.dumps(structure))
    wide.columns = [*fixed, *(_number(name) for name in names)]
    is_sure = wide.select(pl.sum_horizontal(pl.all().is_not_null()) == known["names"]).to_series()
    wide = wide.with_columns(index=known["index"]).filter(is_sure)
    parts = _numbers(wide, list(fixed), names)
    return pl.concat([_empty(wide, list(fixed), names), *parts])


def _numbers(wide: pl.DataFrame, fixed: list[str], names: list[str]) -> Iterator[pl.DataFrame]:
    kind = pl.Enum(names)
    for name in names:
        rows = wide.filter(pl.col(_number(name)).is_not_null())
        yield rows.select("index", *fixed, name=pl.lit(name, kind), value=_number(name))


def _empty(wide: pl.DataFrame, fixed: list[str], names: list[str]) -> pl.DataFrame:
    return wide.clear().select("index", *fixed, name=pl.lit(None, pl.Enum(names)), value=pl.lit(None, pl.Float64))
