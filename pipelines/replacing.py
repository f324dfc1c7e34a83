"""Rows take the place of stored rows of the same key: the files that held those are written anew."""

from collections.abc import Sequence

import polars as pl
from pyiceberg.manifest import DataFile

from assets.table import Table
from pipelines.context import Context
from resources.lakehouse import FILE
from resources.row_order import sort_rows
from resources.selection import BATCH_ID


def replace_rows(
    context: Context,
    table: Table,
    fresh: pl.DataFrame,
    current: pl.DataFrame,
    batch_id: int,
    forgotten: pl.Expr | None = None,
) -> tuple[list[DataFile], Sequence[DataFile]]:
    """Writes the fresh rows and rewrites the files that held their predecessors; neighbours keep their batch_id.

    Args:
        context: storage.
        table: the declaration.
        fresh: the new rows; others of the table keep their place.
        current: the stored rows that they may replace, each with its ``FILE``.
        batch_id: of the commit that is made.
        forgotten: which rows of the rewritten files are left out.

    Returns:
        The files to add and the files to delete.
    """
    key, stored = list(table.key), table.stored
    holding = set(current.join(fresh.select(key), on=key, how="semi", nulls_equal=True)[FILE])
    replaced = [file for file in context.lakehouse.files(stored) if file.file_path in holding]
    rest = context.lakehouse.read_files(stored, replaced).join(fresh.select(key), on=key, how="anti", nulls_equal=True)
    rest = rest if forgotten is None else rest.filter(~forgotten)
    parts = (fresh.with_columns(pl.lit(batch_id, pl.Int64).alias(BATCH_ID)), rest)
    merged = pl.concat([p.select(pl.col(n).cast(t) for n, t in stored.schema.items()) for p in parts])
    return context.lakehouse.write_sorted(stored, sort_rows(merged, stored.sort)) if merged.height else [], replaced
