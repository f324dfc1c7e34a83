"""Fields of a payload that no declared column takes: what they hold, and what becomes of them.

A silver table keeps them as JSON in its column ``extra``. The mode of the table says what is done then:

- ``freeze``: they stay there;
- ``evolve``: each has a column of its own, named after its path, one for each kind of value;
- ``discard_row``: the row is refused as ``unknown_field``;
- ``discard_value``: they are dropped.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from assets.declarations import UnknownFields
from assets.json_payload import shown
from assets.table import Column

EXTRA = "extra"
MOST_FIELDS = 200
"""Fields of a table that are noted, and that columns are made for: a sender may make up any number of names."""

_LONGEST_PATH = 100
_TYPES: dict[str, Any] = {"number": pl.Float64, "text": pl.String, "boolean": pl.Boolean}
_ABOUT = "Field {} of the payload where it is a {}; the column was added when that was first seen"
_PATTERN = re.compile(_ABOUT.replace("{}", "(.+)", 1).replace("{}", f"({'|'.join(_TYPES)})"), re.DOTALL)
_POSITION = ("stream", "sequence", "row")


class Field(NamedTuple):
    """A field by its path, nested names joined by dots, and the kind of its values: number, text or boolean."""

    path: str
    kind: str


def seen_fields(extra: pl.Series) -> dict[Field, str]:
    """The fields in a column of JSON texts, each with a value as an example, in the order of their names."""
    found: dict[Field, str] = {}
    for text in extra.drop_nulls().unique(maintain_order=True):
        for path, value in _leaves("", json.loads(text)):
            if len(path) <= _LONGEST_PATH:
                found.setdefault(Field(path, _kind(value)), shown(value))
    return dict(sorted(found.items()))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values of nested objects by their path; a list is one value, null is none."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, inner)
    elif value is not None:
        yield path, value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "text"


def field_of(description: str) -> Field | None:
    """The field that a column was added for, by its description; None of a declared column."""
    found = _PATTERN.fullmatch(description)
    return Field(found[1], found[2]) if found else None


def fields_of(columns: Sequence[Column]) -> dict[Field, str]:
    """The fields that columns were added for, with the columns' names."""
    return {field: column.name for column in columns if (field := field_of(column.description))}


def new_columns(fields: Sequence[Field], columns: Sequence[Column], lineage: tuple[str, ...]) -> list[Column]:
    """Columns for the fields that have none: named after the path, with the kind behind it where that is taken."""
    known, taken = fields_of(columns), {column.name for column in columns}
    made: list[Column] = []
    for field in fields:
        name = next((n for n in _names(field) if n not in taken), None)
        if field not in known and name is not None and len(known) + len(made) < MOST_FIELDS:
            made.append(Column(name, _TYPES[field.kind], _ABOUT.format(*field), lineage=lineage))
            taken.add(name)
    return made


def _names(field: Field) -> tuple[str, str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field.path)
    name = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")
    name = name if name[:1].isalpha() else f"field_{name}".rstrip("_")
    return name, f"{name}_{field.kind}"


def handle_unknown(
    identifier: str, columns: Sequence[Column], mode: UnknownFields, rows: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Does to the unknown fields of rows what the mode says; returns the rows, and rejects by landing position.

    A field that has a column goes there in every mode: it is known.
    """
    empty = rows.clear().select(*_POSITION, reason=pl.lit("", pl.String), message=pl.lit("", pl.String))
    owned = fields_of(columns)
    if rows[EXTRA].null_count() == rows.height or (mode == "freeze" and not owned):
        return rows, empty
    texts = rows[EXTRA].drop_nulls().unique()
    schema = {EXTRA: pl.String, "_rest": pl.String, "_told": pl.String}
    schema |= {name: _TYPES[field.kind] for field, name in owned.items()}
    read = pl.DataFrame([_read(text, owned) for text in texts], schema, orient="row")
    joined = rows.drop(owned.values(), strict=False).join(read, on=EXTRA, how="left", maintain_order="left")
    is_refused = pl.col("_told").is_not_null() if mode == "discard_row" else pl.lit(False)
    message = pl.format(
        f"{{}} is no field of {identifier}; unknown_fields says {mode}, secchi replay takes it under another", "_told"
    )
    refused = joined.filter(is_refused).select(*_POSITION, reason=pl.lit("unknown_field"), message=message)
    kept = joined.filter(~is_refused).with_columns(
        pl.lit(None, pl.String).alias(EXTRA) if mode == "discard_value" else pl.col("_rest").alias(EXTRA)
    )
    return kept.drop("_rest", "_told"), refused


def _read(text: str, owned: dict[Field, str]) -> tuple[Any, ...]:
    """One text: itself, what is left of it as JSON, the first field that is left, and the values that have a column."""
    values: dict[str, Any] = {}
    rest = _without("", json.loads(text), owned, values)
    left = next(_leaves("", rest), None) if rest else None
    told = f"{left[0]} = {shown(left[1])}" if left else None
    as_json = json.dumps(rest, ensure_ascii=False, separators=(",", ":")) if left else None
    return text, as_json, told, *(values.get(name) for name in owned.values())


def _without(path: str, value: Any, owned: dict[Field, str], values: dict[str, Any]) -> Any:
    """What no column takes of a value; the rest is entered into ``values``. None where nothing is left."""
    if isinstance(value, dict):
        inner = {k: _without(f"{path}.{k}" if path else k, v, owned, values) for k, v in value.items()}
        return {k: v for k, v in inner.items() if v is not None and v != {}} or None
    if value is None or (name := owned.get(Field(path, _kind(value)))) is None:
        return value
    values[name] = value if isinstance(value, str | bool) else float(value) if _is_number(value) else json.dumps(value)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
