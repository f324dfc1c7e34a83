"""Unknown fields on the way into silver: noted once, and given columns where a table evolves."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from assets.declarations import UnknownFields
from assets.ops.fields import fields
from assets.table import Table
from data_quality.unknown_fields import EXTRA, MOST_FIELDS, Field, new_columns, seen_fields
from pipelines.context import Context
from resources.commit import Commit
from resources.selection import Among


def see_fields(context: Context, table: Table, rows: pl.DataFrame) -> tuple[Table, dict[str, str]]:
    """Notes the unknown fields of decoded rows, and adds columns for them where the table evolves.

    Returns:
        The table as it is now, and the fields that were not seen before, each with an example.
    """
    if EXTRA not in rows.columns or rows[EXTRA].null_count() == rows.height:
        return table, {}
    seen, mode = seen_fields(rows[EXTRA]), context.mode_of(table)
    new = _note(context, table, seen, mode)
    lineage = next(c.lineage for c in table.columns if c.name == EXTRA)
    made = new_columns(list(seen), table.columns, lineage) if mode == "evolve" else []
    if made:
        context.lakehouse.add_columns(table.stored, {c.name: (c.dtype, c.description) for c in made})
        table = replace(table, columns=(*table.columns, *made))
        context.tables = {**context.tables, table.identifier: table}
    return table, new


def _note(context: Context, table: Table, seen: Mapping[Field, str], mode: UnknownFields) -> dict[str, str]:
    """Writes those to ops.fields that are not there, up to ``MOST_FIELDS`` of a table."""
    lakehouse, stored = context.lakehouse, fields.stored
    with lakehouse.sole_writer(stored):
        head = lakehouse.head(stored)
        known = lakehouse.read(stored, Among("table_name", [table.identifier]), columns=["path", "kind"])
        noted = {Field(*row) for row in known.rows()}
        new = [field for field in seen if field not in noted][: MOST_FIELDS - len(noted)]
        if not new:
            return {}
        rows = [(table.identifier, *field, seen[field], mode, context.clock()) for field in new]
        frame = pl.DataFrame(rows, {n: t for n, t in fields.schema.items() if n != "batch_id"}, orient="row")
        batch_id = head.batch_id + 1
        frm, to = head.markers.get(table.identifier, {}), {"fields": len(noted) + len(new)}
        files = lakehouse.write(stored, frame, batch_id)
        lakehouse.commit_once(Commit(stored, table.identifier, frm, to, batch_id, files))
    return {f"{field.path} ({field.kind})": seen[field] for field in new}
