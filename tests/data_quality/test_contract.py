"""Contracts: which rows may be committed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.table import UTC_TIME, Table, column, declare
from data_quality.contract import apply_contract, contract_description
from resources.errors import SchemaMismatchError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMITS: dict[str, Any] = {"skew": timedelta(minutes=5), "earliest": datetime(2000, 1, 1, tzinfo=UTC)}
READINGS = declare(
    layer="gold",
    name="readings",
    description="Readings of a test.",
    columns=(
        column("sensor", pl.Int32, "Sensor", required=True),
        column("unit", pl.String, "Unit"),
        column("value", pl.Float64, "Value", required=True),
        column("share", pl.Float64, "Share", minimum=0, maximum=1),
        column("observed_at", UTC_TIME, "Sender's time", required=True),
        column("received_at", UTC_TIME, "Collector's time", required=True),
    ),
    key=("sensor", "observed_at"),
    time="observed_at",
)
TYPES: dict[str, Any] = {n: t for n, t in READINGS.schema.items() if n != "batch_id"}


def row(**values: Any) -> dict[str, Any]:
    usual = {"sensor": 1, "unit": "BAR", "value": 2.0, "share": 0.5, "observed_at": NOON, "received_at": NOON}
    return {**usual, **values}


def rows(*values: dict[str, Any], **types: Any) -> pl.DataFrame:
    return pl.DataFrame(values, schema={**TYPES, **types}, orient="row")


def apply(frame: pl.DataFrame, table: Table = READINGS) -> tuple[pl.DataFrame, pl.DataFrame]:
    return apply_contract(table, frame, **LIMITS)


def test_good_rows_pass_unchanged() -> None:
    frame = rows(row(), row(sensor=2, share=0, unit=None), row(sensor=3, share=1.0))
    good, violations = apply(frame)
    assert good.equals(frame)
    assert violations.is_empty()
    assert violations.columns == [*frame.columns, "reason", "message"]
    assert violations.schema["reason"] == violations.schema["message"] == pl.String


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("missing_required", {"value": None}, "gold.readings.value is null; it is required"),
    ("missing_required", {"observed_at": None}, "gold.readings.observed_at is null; it is required"),
    ("not_finite", {"value": float("nan")}, "gold.readings.value is NaN; it must be a finite number"),
    ("not_finite", {"value": float("-inf")}, "gold.readings.value is -inf; it must be a finite number"),
    ("not_finite", {"share": float("nan")}, "gold.readings.share is NaN; it must be a finite number"),
    ("below_minimum", {"share": -0.1}, "gold.readings.share is -0.1; the minimum is 0"),
    ("above_maximum", {"share": 1.5}, "gold.readings.share is 1.5; the maximum is 1"),
    (
        "time_too_late",
        {"observed_at": NOON + timedelta(minutes=5, microseconds=1)},
        "gold.readings.observed_at is 2026-01-01 12:05:00.000001+00:00, later than received_at "
        "2026-01-01 12:00:00.000000+00:00 by more than 0:05:00",
    ),
    (
        "time_too_early",
        {"observed_at": datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)},
        "gold.readings.observed_at is 1999-12-31 23:59:59.000000+00:00, earlier than 2000-01-01T00:00:00+00:00",
    ),
]


@pytest.mark.parametrize(("reason", "values", "message"), BAD)
def test_bad_row_is_told_apart_with_its_reason(reason: str, values: dict[str, Any], message: str) -> None:
    frame = rows(row(), row(sensor=2, **values), row(sensor=3))
    good, violations = apply(frame)
    assert good["sensor"].to_list() == [1, 3]
    assert violations.drop("reason", "message").equals(frame[1:2])
    assert violations.select("reason", "message").rows() == [(reason, message)]


def test_bounds_of_time_are_inclusive() -> None:
    frame = rows(row(observed_at=NOON + LIMITS["skew"]), row(observed_at=LIMITS["earliest"]))
    assert apply(frame)[0].height == 2


def test_months_old_readings_are_fine() -> None:
    assert apply(rows(row(observed_at=NOON - timedelta(days=300))))[0].height == 1


def test_every_bad_row_has_its_own_reason() -> None:
    frame = rows(*(row(sensor=number, **values) for number, (_, values, _) in enumerate(BAD)), row(sensor=99))
    good, violations = apply(frame)
    assert good["sensor"].to_list() == [99]
    assert violations["reason"].to_list() == [reason for reason, _, _ in BAD]
    assert violations["message"].to_list() == [message for _, _, message in BAD]


def test_row_with_a_reason_of_its_own_keeps_it_beside_that_of_the_contract() -> None:
    own = {"reason": pl.lit("own"), "message": pl.lit("said")}
    good, bad = apply(rows(row(), row(sensor=2, share=2.0)).with_columns(**own))
    assert (good["sensor"].to_list(), good["reason"].to_list()) == ([1], ["own"])
    assert bad.select("reason", "row_reason", "row_message").row(0) == ("above_maximum", "own", "said")


def test_null_in_a_bounded_column_stays_beside_a_bad_row() -> None:
    """A condition on null is null, and neither it nor its negation keeps a row."""
    good, violations = apply(rows(row(share=None), row(sensor=2, share=3.0)))
    assert (good["sensor"].to_list(), violations["sensor"].to_list()) == ([1], [2])


def test_other_types_are_cast() -> None:
    frame = pl.DataFrame(
        {
            "sensor": ["7"],
            "unit": pl.Series([5]),
            "value": pl.Series([3]),
            "share": pl.Series([1], dtype=pl.Float32),
            "observed_at": [NOON.replace(tzinfo=None)],
            "received_at": pl.Series([NOON], dtype=pl.Datetime("ms", "UTC")),
        }
    )
    good, violations = apply(frame)
    assert violations.is_empty()
    assert dict(good.schema) == TYPES
    assert good.to_dicts() == [row(sensor=7, unit="5", value=3.0, share=1.0)]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (pl.Series(["1", "x"]), "gold.readings.sensor is x, which is no Int32"),
        (pl.Series([1.0, 2.5]), "gold.readings.sensor is 2.5, which is no Int32"),
        (pl.Series([1, 2**40]), "gold.readings.sensor is 1099511627776, which is no Int32"),
        (pl.Series([1.0, float("nan")]), "gold.readings.sensor is NaN, which is no Int32"),
    ],
)
def test_value_that_is_no_such_type_is_wrong_type(found: pl.Series, message: str) -> None:
    frame = rows(row(), row()).with_columns(found.alias("sensor"))
    good, violations = apply(frame)
    assert good["sensor"].to_list() == [1]
    assert violations.drop("reason", "message").equals(frame[1:])
    assert violations.select("reason", "message").rows() == [("wrong_type", message)]


def test_null_is_no_wrong_type() -> None:
    _, violations = apply(rows(row()).with_columns(sensor=pl.lit(None, pl.String)))
    assert violations["reason"].to_list() == ["missing_required"]


def test_long_value_is_cut_in_the_message() -> None:
    frame = rows(row()).with_columns(sensor=pl.lit("x" * 5000))
    assert len(apply(frame)[1]["message"].item()) < 200


def test_absent_optional_column_becomes_null_and_order_is_the_declared_one() -> None:
    good, _ = apply(rows(row()).drop("unit").select(pl.all().reverse()))
    assert good.columns == list(TYPES)
    assert good["unit"].to_list() == [None]


def test_absent_required_column_is_the_functions_mistake() -> None:
    with pytest.raises(SchemaMismatchError, match=r"gold\.readings: the rows have no column 'value'; it is required"):
        apply(rows(row()).drop("value"))


def test_type_that_can_never_fit_is_the_functions_mistake() -> None:
    with pytest.raises(SchemaMismatchError, match=r"gold\.readings"):
        apply(rows(row()).with_columns(value=pl.lit([1.0])))


def test_columns_that_are_not_declared_are_kept() -> None:
    good, violations = apply(rows(row(), row(value=None)).with_columns(batch_id=pl.lit(4), note=pl.lit("n")))
    assert good.columns == [*TYPES, "batch_id", "note"]
    assert violations["note"].to_list() == ["n"]


def test_empty_frame_passes() -> None:
    good, violations = apply(rows())
    assert (good.height, violations.height, dict(good.schema)) == (0, 0, TYPES)


def test_table_without_receipt_has_no_bounds_of_time() -> None:
    columns = tuple(c for c in READINGS.columns if c.name not in ("received_at", "batch_id"))
    table = declare(layer="gold", name="t", description="T.", columns=columns, key=("sensor",), time="observed_at")
    frame = rows(row(observed_at=datetime(1980, 1, 1, tzinfo=UTC))).drop("received_at")
    assert apply(frame, table)[0].height == 1


def test_description_names_every_rule() -> None:
    lines = contract_description(READINGS)
    assert lines[0] == "One row for each sensor, observed_at"
    assert "sensor is Int32, is required" in lines
    assert "share is Float64, is at least 0, is at most 1" in lines
    assert lines[-1].startswith("observed_at is not later than received_at")


TIMES: list[datetime] = [NOON, NOON + timedelta(hours=1), datetime.min.replace(tzinfo=UTC)]
VALUES = st.fixed_dictionaries(
    {
        "sensor": st.one_of(st.none(), st.integers(0, 9)),
        "unit": st.one_of(st.none(), st.text(max_size=3)),
        "value": st.one_of(st.none(), st.floats()),
        "share": st.one_of(st.none(), st.floats(-1, 2)),
        "observed_at": st.one_of(st.none(), st.sampled_from(TIMES)),
        "received_at": st.one_of(st.none(), st.just(NOON)),
    }
)


@settings(max_examples=150)
@given(st.lists(VALUES, max_size=8))
def test_each_row_is_judged_as_if_alone(values: list[dict[str, Any]]) -> None:
    frame = rows(*values).with_row_index("number")
    good, violations = apply(frame)
    alone = [apply(frame[n : n + 1]) for n in range(frame.height)]
    assert sorted([*good["number"], *violations["number"]]) == list(range(frame.height))
    assert good["number"].to_list() == [n for n, (one, _) in enumerate(alone) if one.height]
    assert violations["reason"].to_list() == [one["reason"].item() for _, one in alone if one.height]
