"""Declared tables as Iceberg schemas, and how a stored one takes over new columns."""

from typing import Any

import polars as pl
from pyiceberg.io.pyarrow import _ConvertToIcebergWithoutIDs, schema_to_pyarrow, visit_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, HourTransform, IdentityTransform, Transform

from resources.errors import SchemaMismatchError
from resources.stored_table import StoredTable

_TRANSFORMS: dict[str, Transform[Any, Any]] = {
    "identity": IdentityTransform(),
    "hour": HourTransform(),
    "day": DayTransform(),
}
ADDED = "added: "
"""Starts the description of a column that no declaration has; a process that does not know it leaves it alone."""


def iceberg_schema(stored: StoredTable) -> Schema:
    """The declared columns."""
    arrow = pl.DataFrame(schema=stored.schema).to_arrow().schema
    schema = visit_pyarrow(arrow, _ConvertToIcebergWithoutIDs())
    return assign_fresh_schema_ids(schema)


def partition_spec(stored: StoredTable, schema: Schema) -> PartitionSpec:
    """The declared partitions."""
    fields = [
        PartitionField(
            source_id=schema.find_field(p.column).field_id,
            field_id=1000 + i,
            transform=_TRANSFORMS[p.transform],
            name=p.column if p.transform == "identity" else f"{p.column}_{p.transform}",
        )
        for i, p in enumerate(stored.partitions)
    ]
    return PartitionSpec(*fields)


def added_columns(schema: Schema) -> dict[str, tuple[pl.DataType, str]]:
    """The stored columns that no declaration has: type and description."""
    added = {f.name: f.doc.removeprefix(ADDED) for f in schema.fields if f.doc and f.doc.startswith(ADDED)}
    types = pl.DataFrame(schema_to_pyarrow(schema, include_field_ids=False).empty_table()).schema
    return {name: (types[name], about) for name, about in added.items()}


def refuse_mismatch(found: Table, stored: StoredTable, declared: Schema) -> None:
    """Refuses a stored table that cannot become what is declared by adding columns.

    Raises:
        SchemaMismatchError: a column is gone or has another type, or rows that are stored lack a required one.
    """
    have = {f.name: f.field_type for f in found.schema().fields}
    want = {f.name: f.field_type for f in declared.fields}
    changed = [n for n in have if n in want and str(have[n]) != str(want[n])]
    gone = [f.name for f in found.schema().fields if f.name not in want and not (f.doc or "").startswith(ADDED)]
    if changed or gone:
        name = (changed or gone)[0]
        now = f"declared as {want[name]}" if changed else "no longer declared"
        raise SchemaMismatchError(
            f"{stored.identifier}: stored column {name!r} is {have[name]}, {now}; "
            "declare it as it is stored, or give the table another name"
        )
    new = [n for n in want if n not in have]
    if (missing := [n for n in new if n in stored.required]) and _has_rows(found):
        raise SchemaMismatchError(
            f"{stored.identifier}: the stored rows have no column {missing[0]!r}, which is declared as required; "
            "declare it without required, so that it is null in them, or name another lakehouse.path"
        )


def evolve(found: Table, stored: StoredTable, declared: Schema) -> Table:
    """Adds columns that the declaration has and the store has not; raises as ``refuse_mismatch``."""
    refuse_mismatch(found, stored, declared)
    have = {f.name for f in found.schema().fields}
    if new := [f for f in declared.fields if f.name not in have]:
        with found.update_schema() as update:
            for field in new:
                update.add_column(field.name, field.field_type)
    return found


def _has_rows(table: Table) -> bool:
    snapshot = table.current_snapshot()
    return bool(snapshot and snapshot.summary and int(snapshot.summary.get("total-records") or 0))
