"""reference.mib_objects: the packaged facts hang together."""

import json

import polars as pl
import pytest

from assets.reference.mib_objects import mib_objects

KINDS = {"integer", "ipaddress", "string", "octets", "oid", "implied_string", "implied_oid"}


@pytest.fixture(scope="module")
def objects() -> pl.DataFrame:
    assert mib_objects.function is not None
    frame: pl.DataFrame = mib_objects.function()
    return frame


def test_the_frame_has_the_declared_columns_and_a_unique_key(objects: pl.DataFrame) -> None:
    assert objects.schema == {n: t for n, t in mib_objects.schema.items() if n != "batch_id"}
    assert objects["oid"].is_unique().all()
    assert objects.select("mib_module", "object_name").is_unique().all()
    assert (
        not objects.select(c.name for c in mib_objects.columns if c.required and c.name != "batch_id")
        .null_count()
        .sum_horizontal()
        .item()
    )


def test_oids_are_numeric_without_leading_dot(objects: pl.DataFrame) -> None:
    assert objects["oid"].str.contains(r"^1(\.\d+)+$").all()


def test_kinds_are_known_and_every_module_is_covered(objects: pl.DataFrame) -> None:
    assert set(objects["oid_type"]) == {
        "scalar",
        "table",
        "tableRow",
        "tableColumn",
        "objectIdentity",
        "moduleIdentity",
        "notification",
    }
    assert set(objects["mib_module"]) == {
        "SNMPv2-MIB",
        "IF-MIB",
        "HOST-RESOURCES-MIB",
        "ENTITY-SENSOR-MIB",
        "UPS-MIB",
        *("SNMPv2-SMI", "SNMP-FRAMEWORK-MIB", "SNMP-COMMUNITY-MIB", "SNMP-VIEW-BASED-ACM-MIB", "ENTITY-MIB"),
        *("BRIDGE-MIB", "Q-BRIDGE-MIB", "RMON-MIB", "IP-MIB", "TCP-MIB", "UDP-MIB"),
    }


def test_columns_stand_below_their_row_and_share_its_index(objects: pl.DataFrame) -> None:
    index = dict(objects.filter(oid_type="tableRow").select("oid", "index_columns").iter_rows())
    tables = set(objects.filter(oid_type="table")["oid"])
    assert all(oid.rpartition(".")[0] in tables for oid in index)
    for oid, columns in objects.filter(oid_type="tableColumn").select("oid", "index_columns").iter_rows():
        assert index[oid.rpartition(".")[0]] == columns
    for columns in index.values():
        assert all(part.partition(":")[2] in KINDS for part in columns.split(","))


def test_every_object_with_a_value_says_its_syntax_and_meaning(objects: pl.DataFrame) -> None:
    valued = objects.filter(pl.col("oid_type").is_in(["scalar", "tableColumn"]))
    assert not valued["data_type"].has_nulls()
    assert not valued["info"].has_nulls()


def test_enumerations_are_numbers_with_distinct_names(objects: pl.DataFrame) -> None:
    for text in objects["enumeration"].drop_nulls():
        labels = json.loads(text)
        assert all(int(code) >= 0 for code in labels)
        assert len(set(labels.values())) == len(labels)


@pytest.mark.parametrize(
    ("oid", "name", "data_type"),
    [
        ("1.3.6.1.2.1.1.3", "sysUpTime", "TimeTicks"),
        ("1.3.6.1.2.1.2.2.1.8", "ifOperStatus", "INTEGER"),
        ("1.3.6.1.2.1.31.1.1.1.6", "ifHCInOctets", "Counter64"),
        ("1.3.6.1.2.1.25.3.3.1.2", "hrProcessorLoad", "Integer32"),
        ("1.3.6.1.2.1.99.1.1.1.4", "entPhySensorValue", "EntitySensorValue"),
        ("1.3.6.1.2.1.33.1.2.4", "upsEstimatedChargeRemaining", "INTEGER"),
    ],
)
def test_well_known_objects(objects: pl.DataFrame, oid: str, name: str, data_type: str) -> None:
    assert objects.filter(oid=oid).select("object_name", "data_type").row(0) == (name, data_type)
