"""A mistake in a calculation is named in one line: file, calculation, key, value, way out."""

from typing import Any

import pytest

from assets.calculation import calculation
from assets.silver.sensor_readings import sensor_readings
from resources.errors import ConfigurationError


def _built(**changes: Any) -> None:
    definition = {
        "name": "readings_5m",
        "from": "silver.sensor_readings",
        "by": ["site_id", "device_id", "sensor_id"],
        "window": {"kind": "tumbling", "size": "5m"},
        "aggregate": {"readings": "count()"},
        **changes,
    }
    given = {key: value for key, value in definition.items() if value is not None}
    calculation(given, {sensor_readings.identifier: sensor_readings}, "secchi.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "5m"}, "calculation '5m': name must match pattern '^[a-z][a-z0-9_]*$', got '5m'"),
        ({"name": None}, "calculation None: name is missing"),
        ({"by": None}, "by is missing"),
        ({"paint": 1}, "paint is not a known key; known are kind, name, description, from, "),
        ({"aggregates": {}}, "aggregates is not a known key; did you mean aggregate?"),
        (
            {"from": "silver.sensor_reading"},
            "from: 'silver.sensor_reading' is no table; did you mean 'silver.sensor_readings'? "
            "there are silver.sensor_readings",
        ),
        ({"from": "bronze.mqtt_messages"}, "from: 'bronze.mqtt_messages' is no table"),
        ({"by": []}, "by must have at least 1 item"),
        (
            {"by": ["site_id", "device_id", "sensor"]},
            "by names 'sensor', which is no column: did you mean 'sensor_id'?",
        ),
        ({"by": ["site_id", "device_id", "batch_id"]}, "by names 'batch_id', which is no column"),
        ({"window": {"kind": "sliding", "size": "1m"}}, "window slide is missing: a sliding window has size and slide"),
        (
            {"window": {"kind": "session", "size": "1m"}},
            "window.size is not of a session window, which has gap and max",
        ),
        (
            {"window": {"kind": "session", "gap": "1m", "max": "30s"}},
            "window gap must be less than the max of 30s, got 1m",
        ),
        (
            {"window": {"kind": "sliding", "size": "1m", "slide": "2m"}},
            "window slide must be less than the size of 1m, got 2m",
        ),
        (
            {"window": {"kind": "sliding", "size": "1d", "slide": "1s"}},
            "window slide must be at least a 1440th of the size of 1d, got 1s",
        ),
        (
            {"window": {"kind": "hopping", "size": "1m"}},
            "window.kind must be 'tumbling', 'sliding' or 'session', got 'hopping'",
        ),
        ({"window": {"kind": "tumbling"}}, "window size is missing: a tumbling window has size"),
        (
            {"window": {"kind": "tumbling", "sise": "1m"}},
            "window.sise is not a known key; did you mean size?",
        ),
        ({"agregate": {"n": "count()"}}, "agregate is not a known key; did you mean aggregate?"),
        ({"aggregate": None}, "aggregate is missing; it, or function and columns, say what is computed"),
        (
            {"function": "plant:score"},
            "aggregate is missing; it, or function and columns, say what is computed (not both)",
        ),
        ({"aggregate": None, "function": "score"}, "function must match pattern"),
        ({"aggregate": None, "function": "plant:score"}, "columns must say what function returns"),
        (
            {"aggregate": None, "function": "plant:score", "columns": {"score": "DUBLE"}},
            "columns.score must be a type, got 'DUBLE'; did you mean 'DOUBLE'?",
        ),
        (
            {"aggregate": None, "function": "no.such_module:score", "columns": {"score": "DOUBLE"}},
            "function no.such_module:score cannot be imported: ModuleNotFoundError: No module named 'no'",
        ),
        (
            {"aggregate": None, "function": "json:score", "columns": {"score": "DOUBLE"}},
            "function json:score: the module has no function of that name",
        ),
        ({"window": {"kind": "tumbling", "size": "soon"}}, "window.size must be a duration like '30s'"),
        ({"window": {"kind": "tumbling", "size": "0s"}}, "window.size must be at least 1 ms, got 0 s"),
        ({"lateness": -1}, "lateness must be from 0 s to 100 years"),
        ({"aggregate": {}}, "aggregate must have at least 1 item"),
        ({"aggregate": {"N": "count()"}}, "aggregate.N must match pattern"),
        ({"aggregate": {"n": 3}}, "aggregate.n must be a valid string, got 3"),
        ({"aggregate": {"revision": "count()"}}, "aggregate may not be named 'revision'"),
        ({"aggregate": {"site_id": "count()"}}, "aggregate.site_id has the name of a column in by; choose another"),
        ({"where": "measurement"}, "where must be a condition, got 'measurement', which is DOUBLE"),
        ({"where": "count() > 1"}, "where: Binder Error: WHERE clause cannot contain aggregates"),
        (
            {"where": "unit = (select 'BAR')"},
            "where must be an expression over the table's columns, but has a subquery",
        ),
        ({"where": "unit = 'BAR') or (1 = 1"}, "where is no SQL expression: syntax error"),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        _built(**changes)
    assert str(error.value).startswith("secchi.toml: calculation ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("mean(measurment)", "names 'measurment', which is no column: did you mean 'measurement'? there are site_id,"),
        ("max(batch_id)", "names 'batch_id', which is no column"),
        ("max(__position)", "names '__position', which is no column"),
        ("max(input.measurement)", "names 'input.measurement', which is no column"),
        ("current_timestamp", "names 'current_timestamp', which is no column"),
        ("sum(", "is no SQL expression: syntax error"),
        ("count(); drop table input", "is no SQL expression"),
        ("count(); select 1", "must be one SQL expression"),
        ("count(), 1", "must be one SQL expression"),
        ("count() from input", "must be one SQL expression"),
        ("count() limit 1", "must be one SQL expression"),
        ("count() having true", "must be one SQL expression"),
        ("count() union select 1", "must be one SQL expression"),
        ("distinct count()", "must be one SQL expression"),
        ("count() as n", "must be an expression without AS"),
        ("(select 1)", "but has a subquery"),
        ("*", "but has a star"),
        ("columns('m.*')", "but has a star"),
        ("#1", "but has a column number"),
        ("$1", "but has a parameter"),
        ("sum(measurement) over ()", "but has a window function"),
        ("max(list_transform([1], x -> x + 1)[1])", "but has a lambda or the arrow ->"),
        ("max(unit collate nocase)", "but has a collation"),
        ("random()", "uses the function 'random', which is unknown, or its result does not depend on its arguments"),
        ("now()", "uses the function 'now'"),
        ("reservoir_quantile(measurement, 0.5)", "uses the function 'reservoir_quantile'"),
        ("read_text('secchi.toml')", "uses the function 'read_text'"),
        ("getenv('HOME')", "uses the function 'getenv'"),
        ("current_setting('threads')", "uses the function 'current_setting'"),
        ("main.sum(measurement)", "uses the function 'sum'"),
        ("unnest([1])", "uses the function 'unnest'"),
        ("string_agg(distinct unit, ',')", "must give string_agg(DISTINCT ...) an order"),
        ("measurement", 'Binder Error: column "measurement" must appear in the GROUP BY clause'),
        (
            "list(measurement)",
            "must give a number, text, boolean, time or histogram, got 'list(measurement)', which is DOUBLE[]",
        ),
        ("max(received_at - observed_at)", "which is INTERVAL"),
        ("mean(unit)", "No function matches the given name and argument types 'mean(VARCHAR)'"),
        ("quantil(measurement, 0.5)", "uses the function 'quantil', which is unknown"),
        ("quantil(measurement, 0.5)", "did you mean 'quantile'?"),
        ("delta(measurement, 1)", "delta takes a value, got 2 arguments"),
        ("histogram(measurement)", "histogram takes a value and a list of upper bounds, got 1 arguments"),
        ("rate(measurement) filter (where unit = 'A')", "rate takes no DISTINCT, FILTER or ORDER BY"),
    ],
)
def test_mistake_in_an_expression_is_named(expression: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        _built(aggregate={"found": expression})
    assert str(error.value).startswith("secchi.toml: calculation 'readings_5m': aggregate.found")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("expression", ["{}", "max({})", "'{}", "{}(measurement)", "#{}", "(select '{}')"])
def test_long_expression_is_not_told_whole(expression: str) -> None:
    changed = {"aggregate": {"found": expression.format("x" * 100_000)}}
    for changes in (
        changed,
        {"where": expression.format("x" * 100_000)},
        {"name": "x" * 100_000},
        {"by": ["x" * 9999]},
    ):
        with pytest.raises(ConfigurationError) as error:
            _built(**changes)
        assert len(str(error.value)) < 900
