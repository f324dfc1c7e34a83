"""Declared joins beside a brute-force reference in plain Python."""

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.calculation import built_in, calculation
from assets.pairing import Pairing
from assets.silver.machine_readings import machine_readings
from assets.silver.sensor_readings import sensor_readings
from assets.table import Table
from resources.errors import ConfigurationError
from tests.assets.golden import cases, plain, read_expected, read_input

_READ = ("thing", "quantity", "axis", "observed_at", "value", "stream", "sequence", "row")
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TABLES = {t.identifier: t for t in (machine_readings, sensor_readings)}
Event = tuple[str, str, int, float]
"""Axis, quantity, tenths of a second after START, value."""


def definition(match: str = "latest_both", **changes: Any) -> dict[str, Any]:
    found = {
        "name": "powers",
        "kind": "join",
        "by": ["thing", "axis"],
        "within": "1s",
        "match": match,
        "left": {"name": "torque", "from": "silver.machine_readings", "where": "quantity = 'torque'"},
        "right": {"name": "speed", "from": "silver.machine_readings", "where": "quantity = 'speed'"},
        "select": {"product": "torque.value * speed.value", "apart": "epoch_ms(torque_at) - epoch_ms(speed_at)"},
        **changes,
    }
    return {key: value for key, value in found.items() if value is not None}


def frame(events: list[Event]) -> pl.DataFrame:
    made = [
        {
            "thing": "R1",
            "axis": axis,
            "quantity": quantity,
            "observed_at": START + timedelta(milliseconds=100 * at),
            "received_at": START,
            "value": value,
            "stream": "s",
            "sequence": 1,
            "row": row,
        }
        for row, (axis, quantity, at, value) in enumerate(events)
    ]
    return pl.DataFrame(made, schema=machine_readings.schema)


def reference(match: str, events: list[Event]) -> set[tuple[str, int, int, float]]:
    """Axis, torque time, speed time, product of the values."""
    found = set()
    for axis in {axis for axis, *_ in events}:
        left = {at: v for a, q, at, v in events if (a, q) == (axis, "torque")}
        right = {at: v for a, q, at, v in events if (a, q) == (axis, "speed")}
        near = [(t, s) for t in left for s in right if abs(t - s) <= 10]
        pairs = {
            "all": near,
            "latest": [max(p) for t in left if (p := [(t, s) for u, s in near if u == t and s <= t])],
            "next": [min(p) for t in left if (p := [(t, s) for u, s in near if u == t and s >= t])],
            "nearest": [
                min(p, key=lambda pair: (abs(pair[0] - pair[1]), pair[1]))
                for t in left
                if (p := [(t, s) for u, s in near if u == t])
            ],
        }
        turned = [max(p) for s in right if (p := [(t, s) for t, r in near if r == s and t <= s])]
        pairs["latest_both"] = [*pairs["latest"], *turned]
        found |= {(axis, t, s, left[t] * right[s]) for t, s in pairs[match]}
    return found


def pairs_of(rows: pl.DataFrame) -> list[tuple[str, int, int, float]]:
    def tenth(name: str) -> pl.Expr:
        return ((pl.col(name) - START).dt.total_milliseconds() // 100).alias(name)

    return sorted(rows.select("axis", tenth("torque_at"), tenth("speed_at"), "product").rows())


@pytest.mark.parametrize("case", cases("machine_power"), ids=lambda case: case.name)
def test_golden_case(case: Path) -> None:
    table = built_in("machine_power")
    assert table.function is not None
    given = read_input(case, {n: t for n, t in machine_readings.schema.items() if n in _READ})
    assert plain(table.function(given), "row") == read_expected(case)


events_strategy = st.lists(
    st.tuples(st.sampled_from("XY"), st.sampled_from(["torque", "speed", "other"]), st.integers(0, 60)),
    max_size=60,
    unique=True,
)


@pytest.mark.parametrize("match", ["latest", "next", "latest_both", "nearest", "all"])
@given(events_strategy)
@settings(max_examples=20)
def test_pairs_equal_the_reference(match: str, keys: list[tuple[str, str, int]]) -> None:
    events = [(axis, quantity, at, float(at % 7 + 1)) for axis, quantity, at in keys]
    function = calculation(definition(match), TABLES, "secchi.toml").function
    assert isinstance(function, Pairing)
    assert pairs_of(function(frame(events))) == sorted(reference(match, events))
    assert function(frame(events[::-1])).equals(function(frame(events)))


def test_comparison_bites() -> None:
    events: list[Event] = [("X", "torque", 5, 2.0), ("X", "speed", 3, 3.0), ("X", "speed", 9, 3.0)]
    assert reference("latest", events) != reference("latest_both", events) != reference("all", events[:2])


def test_declaration_is_that_of_a_table_in_python() -> None:
    table = built_in("machine_power")
    assert table.key == ("thing", "axis", "torque_at", "speed_at")
    assert (table.inputs, table.time, table.series) == ((machine_readings,), "observed_at", ("thing", "axis"))
    columns = {c.name: c for c in table.columns}
    assert columns["power"].lineage == ("silver.machine_readings.value",)
    assert "is_retracted" in columns and "is_final" not in columns
    assert pickle.loads(pickle.dumps(table.function)) == table.function


def test_two_tables_may_be_joined() -> None:
    """The sides come from different tables; rows of equal keys of both are paired."""
    table: Table = calculation(
        definition(
            "nearest",
            by=["stream"],
            left={"name": "torque", "from": "silver.machine_readings"},
            right={"name": "reading", "from": "silver.sensor_readings", "where": "measurement > 1"},
            select={"product": "torque.value * reading.measurement"},
        ),
        TABLES,
        "secchi.toml",
    )
    assert table.inputs == (machine_readings, sensor_readings) and table.function is not None
    readings = pl.DataFrame(
        [
            {"stream": "s", "observed_at": START + timedelta(seconds=s), "measurement": m, "sequence": 1, "row": int(s)}
            for s, m in ((1, 5.0), (2, 0.5), (4, 7.0))
        ],
        schema=sensor_readings.schema,
    )
    found = table.function(frame([("X", "torque", 12, 2.0), ("X", "torque", 21, 3.0)]), readings)
    assert found["product"].to_list() == [10.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"match": "lastest"}, "match must be 'latest', 'next', 'latest_both', 'nearest' or 'all', got 'lastest'"),
        ({"within": "0s"}, "within must be more than 0 s"),
        ({"within": "8d"}, "within must be at most 7d, got 8d"),
        (
            {"by": ["thing", "axes"]},
            "by names 'axes', which is no column of silver.machine_readings: did you mean 'axis'?",
        ),
        ({"window": {}}, "window is not a known key"),
        (
            {"select": {"x": "torque.valu"}},
            "select.x names 'torque.valu', which is no column: did you mean",
        ),
        ({"select": {"x": "sum(torque.value)"}}, "select.x: Binder Error: WHERE clause cannot contain aggregates"),
        ({"select": {"torque_at": "1"}}, "select.torque_at has the name of a column that every row has"),
        ({"left": {"name": "speed", "from": "silver.machine_readings"}}, "left.name and right.name are both 'speed'"),
        ({"left": {"name": "t", "from": "silver.machine"}}, "left.from: 'silver.machine' is no table"),
        (
            {"left": {"name": "torque", "from": "silver.machine_readings", "where": "quantty = 'a'"}},
            "left.where names 'quantty', which is no column: did you mean 'quantity'?",
        ),
        (
            {"by": ["row"], "right": {"name": "r", "from": "silver.sensor_readings", "where": "unit"}},
            "right.where must be a condition, got 'unit', which is VARCHAR",
        ),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    changed = {"select": {"product": "torque_at"}, **changes} if "right" in changes else changes
    with pytest.raises(ConfigurationError) as error:
        calculation(definition(**changed), TABLES, "secchi.toml")
    assert str(error.value).startswith("secchi.toml: calculation 'powers'")
    assert message in str(error.value) and "\n" not in str(error.value)
