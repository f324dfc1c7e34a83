import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest

from assets.bronze.mqtt_messages import mqtt_messages
from assets.calculation import built_in
from assets.catalog import declared_tables, load_tables
from assets.silver.sensor_readings import sensor_readings
from resources.errors import ConfigurationError

_DEFINITION = {
    "name": "readings_5m",
    "description": "One row a sensor and five minutes.",
    "from": "silver.sensor_readings",
    "by": ["site_id", "device_id"],
    "window": {"kind": "tumbling", "size": "5m"},
    "aggregate": {"readings": "count()"},
}


def _module(name: str, **tables: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(tables)
    return module


def test_tables_are_found_without_a_list() -> None:
    tables = load_tables()
    assert tables["bronze.mqtt_messages"] is mqtt_messages
    assert tables["silver.sensor_readings"] is sensor_readings
    assert tables["gold.sensor_windows_1m"] is built_in("sensor_windows_1m")
    assert {"ops.watermarks", "quarantine.records"} <= tables.keys()
    assert all(name == table.identifier for name, table in tables.items())


def test_upstream_tables_come_first_and_are_the_same_objects() -> None:
    seen: list[str] = []
    tables = load_tables([_DEFINITION])
    for name, table in tables.items():
        for upstream in (*table.inputs, *table.references):
            assert upstream.identifier in seen
            assert tables[upstream.identifier] is upstream
        seen.append(name)
    assert seen.index("gold.readings_5m") > seen.index("silver.sensor_readings")


def test_order_does_not_depend_on_what_was_loaded_before() -> None:
    assert list(load_tables([_DEFINITION])) == list(load_tables([_DEFINITION]))
    assert [name for name in load_tables([_DEFINITION]) if name != "gold.readings_5m"] == list(load_tables())


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        (
            [{**_DEFINITION, "from": "silver.nothing"}],
            "secchi.toml: calculation 'readings_5m': from: 'silver.nothing' is",
        ),
        ([_DEFINITION, _DEFINITION], "gold.readings_5m is there already; choose another name"),
        ([{**_DEFINITION, "name": "sensor_windows_1m"}], "gold.sensor_windows_1m is there already"),
    ],
)
def test_mistake_in_a_calculation_is_named(definitions: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        load_tables(definitions)


def test_source_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^plant\.toml: calculation"):
        load_tables([{**_DEFINITION, "by": []}], "plant.toml")


def test_file_has_the_name_of_its_table() -> None:
    wrong = _module("assets.silver.readings", sensor_readings=sensor_readings)
    with pytest.raises(ConfigurationError) as error:
        declared_tables([wrong], {})
    right = "assets/silver/sensor_readings.py"
    assert (
        str(error.value) == f"assets/silver/readings.py: declares silver.sensor_readings, which must stand in {right}"
    )


def test_import_of_a_declaration_opens_nothing() -> None:
    """One that DuckDB has to read is made when it is asked for."""
    program = """
import assets, duckdb, importlib, pkgutil
del duckdb.connect
for module in pkgutil.walk_packages(assets.__path__, "assets."):
    importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_import_of_an_upstream_table_declares_nothing() -> None:
    user = _module("assets.silver.other", mqtt_messages=mqtt_messages, other=replace(sensor_readings, name="other"))
    home = _module("assets.bronze.mqtt_messages", mqtt_messages=mqtt_messages)
    assert declared_tables([user, home], {}).keys() == {"bronze.mqtt_messages", "silver.other"}


def test_name_is_of_one_table() -> None:
    home = _module("assets.bronze.mqtt_messages", mqtt_messages=mqtt_messages)
    other = _module("assets.bronze.copies", copies=replace(mqtt_messages, owner="team:other"))
    with pytest.raises(ConfigurationError, match=r"assets/bronze/copies.py: bronze.mqtt_messages is declared twice"):
        declared_tables([home, other], {})
    with pytest.raises(ConfigurationError, match="is declared twice"):
        declared_tables([home], {mqtt_messages.identifier: replace(mqtt_messages, owner="team:other")})
