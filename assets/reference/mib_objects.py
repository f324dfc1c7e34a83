"""reference.mib_objects."""

import json
from importlib.resources import files
from typing import Any

import polars as pl

from assets.table import column, table


def _row(record: dict[str, Any]) -> dict[str, Any]:
    labels = record.get("enumeration")
    return {**record, "enumeration": json.dumps(labels) if labels else None}


@table(
    layer="reference",
    columns=(
        column("oid", pl.String, "Object identifier without leading dot, without instance", required=True),
        column("object_name", pl.String, "Name within its module, e.g. ifHCInOctets", required=True),
        column("data_type", pl.String, "SYNTAX, e.g. Counter64 or DisplayString; null where there is no value"),
        column("info", pl.String, "Unit or meaning of the value"),
        column(
            "oid_type",
            pl.String,
            "scalar, table, tableRow, tableColumn, objectIdentity, moduleIdentity or notification",
            required=True,
        ),
        column("mib_module", pl.String, "MIB module that defines it, e.g. IF-MIB", required=True),
        column(
            "index_columns",
            pl.String,
            "tableRow, tableColumn: the INDEX as name:kind, comma between. Kinds: integer, ipaddress; string, octets "
            "(hex) and oid with their length before; implied_string and implied_oid to the end; fixed_string/N",
        ),
        column("enumeration", pl.String, "Names of the values as JSON, e.g. {'1': 'up'}; null if they have none"),
    ),
    key=("oid",),
    kinds=("iceberg", "reference", "snmp"),
)
def mib_objects() -> pl.DataFrame:
    """One row an SNMP object that operators use, so that samples can be named and their instances read.

    Covers SNMPv2-MIB (RFC 3418), IF-MIB (RFC 2863), HOST-RESOURCES-MIB (RFC 2790), ENTITY-SENSOR-MIB (RFC 3433) and
    UPS-MIB (RFC 1628). Source: `mib_objects.json` of this package.
    """
    text = files("assets.reference").joinpath("mib_objects.json").read_text()
    schema = {name: dtype for name, dtype in mib_objects.schema.items() if name != "batch_id"}
    return pl.DataFrame([_row(record) for record in json.loads(text)], schema=schema)
