import pickle
import tempfile
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.aggregation import Aggregation, UserFunction, in_order
from assets.calculation import built_in, built_in_names, calculation
from assets.expressions import open_sandbox, spill_folder
from assets.payload_texts import ask
from assets.silver.sensor_readings import sensor_readings
from assets.table import UTC_TIME, Table
from assets.windowing import SERIES
from resources.errors import ConfigurationError, TableFunctionError
from resources.stored_table import Partition
from tests.assets.golden import cases, plain, read_expected, read_input

_TABLES = {sensor_readings.identifier: sensor_readings}
_SERIES = ("site_id", "device_id", "sensor_id", "unit")
_READ = {name: sensor_readings.schema[name] for name in (*_SERIES, "observed_at", "measurement")}
_START = datetime(2024, 10, 19, 4, 35, tzinfo=UTC)


def _definition(**changes: Any) -> dict[str, Any]:
    definition = {
        "name": "readings_5m",
        "description": "One row a sensor and five minutes.",
        "from": "silver.sensor_readings",
        "by": ["site_id", "device_id", "sensor_id"],
        "window": {"kind": "tumbling", "size": "5m"},
        "lateness": "2m",
        "aggregate": {"readings": "count()"},
        **changes,
    }
    return {key: value for key, value in definition.items() if value is not None}


def _built(**changes: Any) -> Table:
    return calculation(_definition(**changes), _TABLES, "secchi.toml")


def _computed(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    assert isinstance(table.function, Aggregation)
    return table.function(rows)


def _rows(*readings: tuple[float, float | None], **columns: Any) -> pl.DataFrame:
    """Readings of one series: seconds after the start, and the measurement."""
    constant = {"site_id": 101, "device_id": 1, "sensor_id": 7, "unit": "BAR", "received_at": _START, "stream": "s"}
    made = [
        {**constant, "observed_at": _START + timedelta(seconds=at), "measurement": value, "sequence": 1, "row": row}
        for row, (at, value) in enumerate(readings)
    ]
    return pl.DataFrame([{**row, **columns} for row in made], sensor_readings.schema)


def _value(expression: str, rows: pl.DataFrame, **changes: Any) -> Any:
    return _computed(_built(aggregate={"found": expression}, **changes), rows)["found"].to_list()


@pytest.mark.parametrize("case", cases("sensor_windows_1m"), ids=lambda case: case.name)
def test_golden_case(case: Path) -> None:
    windows = _computed(built_in("sensor_windows_1m"), read_input(case, _READ))
    assert plain(windows, "row") == read_expected(case)


def test_declaration_is_that_of_a_table_in_python() -> None:
    table = _built(aggregate={"p95": "quantile(measurement, 0.95)", "readings": "count()"}, where="unit = 'BAR'")
    columns = {c.name: c for c in table.columns}
    by = ["site_id", "device_id", "sensor_id"]
    assert list(columns)[:7] == [*by, "window_start", "window_end", "p95", "readings"]
    assert list(columns)[7:] == ["is_final", "revision", "corrected_at", "is_retracted", "batch_id"]
    assert (table.identifier, table.inputs) == ("gold.readings_5m", (sensor_readings,))
    assert (table.key, table.series, table.time) == ((*by, "window_start"), tuple(by), "window_start")
    assert table.window is not None
    assert (table.window.size, table.window.lateness) == (timedelta(minutes=5), timedelta(minutes=2))
    assert table.partitions == (Partition("window_start", "day"),)
    assert columns["p95"].dtype == pl.Float64
    assert columns["p95"].description == "`quantile(measurement, 0.95)` where unit = 'BAR'"
    assert columns["p95"].lineage == ("silver.sensor_readings.measurement", "silver.sensor_readings.unit")
    assert columns["window_start"].lineage == ("silver.sensor_readings.observed_at",)
    assert columns["site_id"].lineage == ("silver.sensor_readings.site_id",)
    assert columns["readings"].required
    assert not columns["p95"].required


def test_result_has_the_declared_types() -> None:
    expressions = {
        "whole": "sum(sensor_id)",
        "exact": "sum(sensor_id)::bigint",
        "decimal": "sum(1.5)",
        "small": "max(sensor_id::tinyint)",
        "text": "max(unit)",
        "truth": "bool_or(measurement > 2)",
        "day": "min(observed_at)::date",
        "moment": "max(observed_at)",
        "naive": "max(observed_at)::timestamp",
        "delay_seconds": "max(epoch(received_at - observed_at))",
    }
    table = _built(aggregate=expressions)
    windows = _computed(table, _rows((0, 1.0), (1, 3.0)))
    assert dict(windows.schema) == {name: table.schema[name] for name in windows.columns}
    assert windows.drop("site_id", "device_id", "sensor_id", "window_start", "window_end").row(0) == (
        *(14.0, 14, 3.0, 7, "BAR", True, _START.date(), _START + timedelta(seconds=1), _START + timedelta(seconds=1)),
        0.0,
    )
    assert dict(_computed(table, _rows()).schema) == dict(windows.schema)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("first(measurement)", 3.0),
        ("last(measurement)", None),
        ("FIRST(Measurement)", 3.0),
        ("first(measurement order by measurement desc nulls last)", 9.0),
        ("last(measurement order by unit)", None),
        ("string_agg(measurement::int::text, '-')", "3-9-1"),
        ("string_agg(distinct unit, ',' order by unit)", "BAR"),
        ("count(measurement)", 3),
        ("avg(measurement) filter (where measurement > 2)", 6.0),
        ("max(measurement) - min(measurement)", 8.0),
        ("quantile(measurement, 0.5)", 3.0),
        ("percentile_cont(0.25) within group (order by measurement)", 2.0),
        ("case when count() > 3 then 'many' else 'few' end", "many"),
        ("sum(if(measurement between 2 and 4, 1, 0))::bigint", 1),
        ("max(extra->>'$.quality')", None),
        ("stddev(measurement) / nullif(0 * count(), 0)", None),
        ("count(distinct measurement)", 3),
        ("delta(measurement)", -2.0),
        ("delta(case when measurement > 2 then measurement end)", 6.0),
        ("rate(measurement)", -1.0),
        ("round(slope(measurement), 9)", -1.0),
        ("time_weighted_mean(measurement)", 13 / 3),
        ("share_of_time(measurement > 2)", 2 / 3),
        ("share_of_time(measurement > 100)", 0.0),
        ("histogram(measurement, [2, 3, 5])", [1, 1, 0, 1]),
        ("round(2 * slope(measurement) + 3, 9)", 1.0),
    ],
)
def test_expression_over_a_window(expression: str, found: object) -> None:
    assert _value(expression, _rows((4, None), (1, 3.0), (3, 1.0), (2, 9.0))) == [found]


def test_time_in_a_window_is_that_between_its_rows() -> None:
    """Each row counts until the next one; what the series did before the first and behind the last is not known."""
    rows = _rows((0, 1.0), (10, 5.0), (40, 9.0))
    assert _value("time_weighted_mean(measurement)", rows) == [(1.0 * 10 + 5.0 * 30) / 40]
    assert _value("share_of_time(measurement > 2)", rows) == [0.75]
    assert _value("time_weighted_mean(measurement)", _rows((3, 7.0))) == [7.0]
    assert _value("share_of_time(measurement > 2)", _rows((3, 7.0))) == [1.0]
    assert _value("rate(measurement)", _rows((3, 7.0))) == [None]
    assert _value("slope(measurement)", rows) == [pytest.approx(160 / (2600 / 3))]


def test_sliding_window_holds_time_by_its_own_edges() -> None:
    rows = _rows((0, 1.0), (50, 5.0), (70, 9.0))
    window = {"kind": "sliding", "size": "2m", "slide": "1m"}
    found = _computed(_built(aggregate={"found": "time_weighted_mean(measurement)"}, window=window), rows)
    assert found["window_start"].to_list() == [_START + timedelta(minutes=m) for m in (-1, 0, 1)]
    assert found["found"].to_list() == [1.0, (1.0 * 50 + 5.0 * 20) / 70, 9.0]


def test_users_function_is_given_windows_and_versioned(tmp_path: Path) -> None:
    source = tmp_path / "furnace.py"
    source.write_text(
        "def spread(rows):\n"
        "    by = ['site_id', 'device_id', 'sensor_id', 'window_start']\n"
        "    m = __import__('polars').col('measurement')\n"
        "    return rows.group_by(by).agg(spread=m.max() - m.min(), order=m.first())\n"
    )
    changes = {"aggregate": None, "function": "furnace:spread", "columns": {"spread": "DOUBLE", "order": "DOUBLE"}}
    table = calculation(_definition(**changes), _TABLES, str(tmp_path / "secchi.toml"))
    assert isinstance(table.function, UserFunction)
    found = table.function(_rows((4, 2.0), (1, 3.0), (301, 5.0)))
    assert found.select("spread", "order").rows() == [(1.0, 3.0), (0.0, 5.0)]
    assert found["function_version"].unique().to_list() == [table.function.version]
    assert pickle.loads(pickle.dumps(table.function)) == table.function
    assert table.schema["spread"] == pl.Float64


def test_module_that_another_hides_is_told(tmp_path: Path) -> None:
    """Two files that declare calculations have a module of one name beside each: the second would get the first one."""
    changes = {"aggregate": None, "function": "hidden_rule:rule", "columns": {"found": "DOUBLE"}}
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hidden_rule.py").write_text("def rule(rows):\n    return rows\n")
    calculation(_definition(**changes), _TABLES, str(tmp_path / "north" / "secchi.toml"))
    with pytest.raises(
        ConfigurationError, match=r"south/hidden_rule\.py is hidden by .*north/hidden_rule\.py; give the"
    ):
        calculation(_definition(**changes), _TABLES, str(tmp_path / "south" / "secchi.toml"))


def test_failure_of_a_users_function_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken_furnace.py").write_text("def spread(rows):\n    return rows.select('nothing')\n")
    changes = {"aggregate": None, "function": "broken_furnace:spread", "columns": {"spread": "DOUBLE"}}
    table = calculation(_definition(**changes), _TABLES, str(tmp_path / "secchi.toml"))
    assert table.function is not None
    with pytest.raises(TableFunctionError, match=r"^gold\.readings_5m: function broken_furnace:spread failed: Column"):
        table.function(_rows((4, 2.0)))


def test_definition_changes_with_what_is_computed() -> None:
    assert _built().definition == _built(description="Another text").definition == _built(lateness="9m").definition
    others = (
        _built(where="unit = 'BAR'"),
        _built(window={"kind": "tumbling", "size": "4m"}),
        _built(aggregate={"readings": "count(measurement)"}),
    )
    assert len({_built().definition, *(t.definition for t in others)}) == 4


def test_condition_leaves_out_rows_and_windows_without_rows() -> None:
    rows = _rows((0, 1.0), (1, 5.0), (300, 1.0), (600, 7.0))
    windows = _computed(_built(where="measurement > 2 and unit in ('BAR', 'A')"), rows)
    assert windows["window_start"].to_list() == [_START, _START + timedelta(minutes=10)]
    assert windows["readings"].to_list() == [1, 1]


def test_ties_in_time_are_ordered_by_key() -> None:
    """Two series of the input in one series of the calculation: their readings of one moment keep an order."""
    rows = pl.concat(
        _rows((0, value), unit=unit, row=row) for value, unit, row in ((1.0, "A", 2), (2.0, "B", 0), (3.0, "C", 1))
    )
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        assert _value("first(measurement)", rows[order]) == [2.0]
        assert _value("last(measurement)", rows[order]) == [1.0]


def _many(groups: int, each: int, seed: int) -> pl.DataFrame:
    """Measurements of so many magnitudes that a sum depends on its order."""
    random = np.random.default_rng(seed)
    count = groups * each
    index = np.arange(count)
    return pl.DataFrame(
        {
            "site_id": np.full(count, 1),
            "device_id": index % groups % 7,
            "sensor_id": index % groups,
            "unit": np.full(count, "A"),
            "observed_at": 1729312500000000 + index // groups * 7_000_000,
            "measurement": random.normal(0, 1, count) * 10.0 ** random.integers(-8, 8, count),
        },
        _READ,
    )


def _bits(windows: pl.DataFrame) -> pl.DataFrame:
    floats = [name for name, dtype in windows.schema.items() if dtype == pl.Float64]
    return windows.with_columns(pl.Series(n, windows[n].fill_null(1e-300).to_numpy().view("int64")) for n in floats)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.data())
def test_same_rows_give_the_same_bits_in_any_order_and_company(
    seed: int, groups: int, each: int, data: st.DataObject
) -> None:
    table, rows = built_in("sensor_windows_1m"), _many(groups, each, seed)
    expected = _bits(_computed(table, rows))
    shuffled = rows.sample(fraction=1, shuffle=True, seed=seed)
    assert _bits(_computed(table, shuffled)).equals(expected)
    chosen = data.draw(st.sets(st.integers(0, groups - 1), min_size=1))
    alone = _bits(_computed(table, shuffled.filter(pl.col("sensor_id").is_in(chosen))))
    assert alone.equals(expected.filter(pl.col("sensor_id").is_in(chosen)))


@pytest.mark.parametrize(("groups", "each"), [(200_000, 2), (20_000, 17)])
def test_many_windows_at_once_give_the_bits_of_each_alone(groups: int, each: int) -> None:
    """DuckDB may spread a large group-by over several hash tables; no window may be summed in two parts."""
    table, rows = built_in("sensor_windows_1m"), _many(groups, each, 1)
    every = _bits(_computed(table, rows))
    for first in range(0, groups, groups // 8):
        part = pl.col("sensor_id").is_between(first, first + 99)
        assert _bits(_computed(table, rows.filter(part))).equals(every.filter(part))


def test_comparison_of_bits_bites() -> None:
    rows = _many(1, 40, 2)
    forwards, backwards = rows["measurement"].to_list(), rows["measurement"].reverse().to_list()
    assert sum(forwards) != sum(backwards)


@pytest.mark.parametrize("years", [1, 200_000])
def test_order_is_that_of_series_and_time(years: int) -> None:
    """Number and time of a row make one integer only where one integer holds them."""
    random = np.random.default_rng(3)
    at = random.integers(-years * 31_536_000_000_000, years * 31_536_000_000_000, 500) // 2
    number = random.integers(0, 40, 500).astype("uint32")
    rows = pl.DataFrame({SERIES: number, "observed_at": at}, {SERIES: pl.UInt32, "observed_at": UTC_TIME})
    found = in_order(rows, ["observed_at"], 40)
    assert found.with_columns(pl.col("observed_at").to_physical()).rows() == sorted(
        zip(number.tolist(), at.tolist(), strict=True)
    )


def test_function_can_be_sent_to_a_worker() -> None:
    table = built_in("sensor_windows_1m")
    assert pickle.loads(pickle.dumps(table.function)) == table.function


def test_sandbox_has_no_files() -> None:
    with open_sandbox() as connection:
        with pytest.raises(duckdb.PermissionException):
            connection.sql(f"select * from read_text('{Path(__file__)}')")
        with pytest.raises(duckdb.InvalidInputException):
            connection.execute("set enable_external_access = true")


def test_what_does_not_fit_into_memory_goes_to_a_folder_of_its_own() -> None:
    query = "select current_setting('temp_directory') as place"
    with open_sandbox() as connection:
        assert connection.execute(query).fetchall() == [(spill_folder(),)]
    assert ask(query, pl.Series(["a payload"])).item() == spill_folder()
    assert Path(spill_folder()).parent == Path(tempfile.gettempdir())


def test_built_in_is_made_once() -> None:
    assert "sensor_windows_1m" in built_in_names()
    assert built_in("sensor_windows_1m") is built_in("sensor_windows_1m")
    assert built_in("sensor_windows_1m").partitions == (Partition("window_start", "hour"),)


def test_definition_reads_as_toml() -> None:
    document = tomllib.loads(
        """
        [[calculation]]
        name = "hot_ovens_10m"
        description = "Ovens above 300 degrees"
        from = "silver.sensor_readings"
        where = "unit_canonical = 'celsius' and measurement > 300"
        by = ["site_id", "device_id"]
        window = {kind = "tumbling", size = "10m"}
        lateness = "2m"
        aggregate = {readings = "count()", hottest_celsius = "max(measurement)"}
        """
    )
    assert calculation(document["calculation"][0], _TABLES, "secchi.toml").identifier == "gold.hot_ovens_10m"
