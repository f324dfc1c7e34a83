"""reference.mib_objects."""

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import polars as pl

from assets.table import UTC_TIME, column, table
from resources.mib_types import Known

_COLUMNS = (
    column("oid", pl.String, "Object identifier without leading dot, without instance", required=True),
    column("object_name", pl.String, "Name within its module, e.g. ifHCInOctets", required=True),
    column("data_type", pl.String, "SYNTAX, e.g. Counter64 or DisplayString; null where there is no value"),
    column("info", pl.String, "What the module says the object is (DESCRIPTION)"),
    column(
        "oid_type",
        pl.String,
        "scalar, table, tableRow, tableColumn, objectIdentity, moduleIdentity, notification, objectGroup, "
        "notificationGroup, moduleCompliance or agentCapabilities",
        required=True,
    ),
    column("mib_module", pl.String, "MIB module that defines it, e.g. IF-MIB", required=True),
    column(
        "index_columns",
        pl.String,
        "tableRow, tableColumn: the INDEX as name:kind, comma between. Kinds: integer, ipaddress; string, octets, "
        "inetaddress and oid with their length before; with implied_ to the end; fixed_string/N, fixed_octets/N",
    ),
    column("enumeration", pl.String, "Names of the values, or of the bits, as JSON, e.g. {'1': 'up'}; null if none"),
    column("base_type", pl.String, "What data_type comes down to, e.g. OCTET STRING, INTEGER or BITS"),
    column("textual_convention", pl.String, "Textual convention of the value, e.g. DateAndTime; null if it has none"),
    column("display_hint", pl.String, "DISPLAY-HINT of the textual convention (RFC 2579 section 3.1)"),
    column("units", pl.String, "UNITS, e.g. seconds"),
    column("access", pl.String, "MAX-ACCESS, e.g. read-only; null where the module is built in"),
    column("status", pl.String, "current, deprecated, obsolete, mandatory ...; null where the module is built in"),
    column("augments", pl.String, "tableRow: the row that it adds columns to"),
    column("loaded_at", UTC_TIME, "When the module was loaded by `secchi mib load`; null where it is built in"),
)


def _packaged(name: str) -> Any:
    return json.loads(files("assets.reference").joinpath(name).read_text())


def known_modules() -> Known:
    """The built-in modules, for the compiler of others."""
    return Known(_packaged("mib_objects.json"), _packaged("mib_types.json"))


def object_rows(records: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Records of modules as rows of the table; what a record does not say is null."""
    schema = {name: dtype for name, dtype in mib_objects.schema.items() if name != "batch_id"}
    rows = [{**dict.fromkeys(schema), **record, "enumeration": _labels(record)} for record in records]
    return pl.DataFrame(rows, schema=schema)


def _labels(record: Mapping[str, Any]) -> str | None:
    labels = record.get("enumeration")
    return json.dumps(labels) if labels else None


def _with_types(known: Known, record: Mapping[str, Any]) -> dict[str, Any]:
    found = known.type_of(record["data_type"], record["mib_module"]) if record.get("data_type") else None
    if found is None:
        return dict(record)
    types = {"base_type": found.base, "textual_convention": found.convention, "display_hint": found.display_hint}
    return {**types, **record}


@table(
    layer="reference",
    columns=_COLUMNS,
    key=("oid",),
    kinds=("iceberg", "reference", "snmp"),
)
def mib_objects() -> pl.DataFrame:
    """One row an SNMP object: what samples and traps are named by, and how their instances and values are read.

    Built in are the parts that operators use of SNMPv2-MIB (RFC 3418), IF-MIB (RFC 2863), HOST-RESOURCES-MIB (RFC
    2790), ENTITY-MIB (RFC 6933), ENTITY-SENSOR-MIB (RFC 3433), UPS-MIB (RFC 1628), and the roots that others hang on.
    Others come from `secchi mib load`; where two modules define one OID, the first stays.
    Source: `mib_objects.json` and `mib_types.json` of this package, and the modules of the user.
    """
    known = known_modules()
    return object_rows(_with_types(known, record) for record in known.objects)
