"""Unknown fields: what is seen of them, which columns they would have, and what each mode does."""

import json
from typing import Any

import polars as pl
import pytest

from assets.declarations import UnknownFields
from assets.silver.sensor_readings import sensor_readings
from assets.table import Column
from data_quality.unknown_fields import (
    MOST_FIELDS,
    Field,
    field_of,
    fields_of,
    handle_unknown,
    new_columns,
    seen_fields,
)

DECLARED = sensor_readings.columns
PLACE: dict[str, Any] = {"stream": pl.String, "sequence": pl.Int64, "row": pl.Int32}


def extras(*documents: Any) -> pl.DataFrame:
    texts = [None if d is None else json.dumps(d, separators=(",", ":")) for d in documents]
    rows = [("s", 1, number, text) for number, text in enumerate(texts)]
    return pl.DataFrame(rows, {**PLACE, "extra": pl.String}, orient="row")


def columns_for(*documents: Any) -> list[Column]:
    fields = seen_fields(extras(*documents)["extra"])
    return [*DECLARED, *new_columns(list(fields), DECLARED, ())]


def test_fields_are_seen_by_path_and_kind_with_an_example() -> None:
    found = seen_fields(
        extras(None, {"a": 1, "metadata": {"b": "x", "c": None, "d": {"e": True}}}, {"a": "y"})["extra"]
    )
    assert found == {
        Field("a", "number"): "1",
        Field("a", "text"): '"y"',
        Field("metadata.b", "text"): '"x"',
        Field("metadata.d.e", "boolean"): "true",
    }


def test_columns_are_named_after_the_path() -> None:
    made = columns_for({"fwVersion": "1", "metadata": {"Humidity %": 3, "9": True}, "site_id": 1, "l": [1, 2]})
    assert {c.name: str(c.dtype) for c in made[len(DECLARED) :]} == {
        "fw_version": "String",
        "metadata_humidity": "Float64",
        "metadata_9": "Boolean",
        "site_id_number": "Float64",  # the declared one is another
        "l": "String",
    }
    assert [field_of(c.description) for c in DECLARED] == [None] * len(DECLARED)
    assert set(fields_of(made).values()) == {c.name for c in made[len(DECLARED) :]}


def test_another_kind_has_a_column_of_its_own_and_a_third_of_one_name_none() -> None:
    made = [*DECLARED]
    for document in ({"a b": 1}, {"a b": "x"}, {"a-b": 2}, {"a_b": 3}):
        made += new_columns(list(seen_fields(extras(document)["extra"])), made, ())
    assert [c.name for c in made[len(DECLARED) :]] == ["a_b", "a_b_text", "a_b_number"]


def test_number_of_columns_is_bounded() -> None:
    assert len(columns_for({f"field{n}": n for n in range(MOST_FIELDS + 50)})) == len(DECLARED) + MOST_FIELDS


@pytest.mark.parametrize(
    ("mode", "extra", "refused"),
    [
        ("freeze", '{"a":1,"metadata":{"b":"x"}}', []),
        ("evolve", '{"a":1,"metadata":{"b":"x"}}', []),
        ("discard_value", None, []),
        ("discard_row", None, ["a = 1 is no field of silver.sensor_readings"]),
    ],
)
def test_what_a_mode_does(mode: UnknownFields, extra: str | None, refused: list[str]) -> None:
    given = extras(None, {"a": 1, "metadata": {"b": "x"}})
    rows, rejects = handle_unknown("silver.sensor_readings", DECLARED, mode, given)
    assert rows.filter(pl.col("row") == 1)["extra"].to_list() == ([] if refused else [extra])
    assert rows.filter(pl.col("row") == 0)["extra"].to_list() == [None]
    assert [m.split(";")[0] for m in rejects["message"]] == refused
    assert rejects.drop("message").rows() == [("s", 1, 1, "unknown_field")] * len(refused)


@pytest.mark.parametrize("mode", ["freeze", "evolve", "discard_value", "discard_row"])
def test_field_with_a_column_is_known_in_every_mode(mode: UnknownFields) -> None:
    columns = columns_for({"a": 1, "m": {"b": True}, "l": [1]})
    rows, rejects = handle_unknown("t", columns, mode, extras({"a": 2, "m": {"b": False}, "l": [3]}, {"a": 3}, None))
    assert rejects.is_empty()
    assert rows.select("a", "m_b", "l", "extra").rows() == [
        (2.0, False, "[3]", None),
        (3.0, None, None, None),
        (None, None, None, None),
    ]


def test_what_no_column_takes_stays_beside_what_one_takes() -> None:
    rows, _ = handle_unknown("t", columns_for({"m": {"a": 1}}), "freeze", extras({"m": {"a": 2, "c": "x"}, "d": 1}))
    assert rows.select("m_a", "extra").rows() == [(2.0, '{"m":{"c":"x"},"d":1}')]
    rows, _ = handle_unknown("t", columns_for({"m": {"a": 1}}), "freeze", extras({"m": {"a": "no number"}}))
    assert rows.select("m_a", "extra").rows() == [(None, '{"m":{"a":"no number"}}')]
