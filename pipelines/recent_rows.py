"""The rows of a table that were written lately: what the suites look at."""

import polars as pl
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.types import LongType

from assets.ops.batches import batches
from assets.table import Table
from pipelines.context import Context
from resources.selection import BATCH_ID, FAR_FUTURE, Among, Ranges, changes

MOST_ROWS = 100_000

_MOST_BYTES = 64 * 2**20
_STEADY = frozenset({"reference", "ops", "quality"})


def recent_rows(context: Context, table: Table) -> pl.DataFrame:
    """The rows that were committed within ``quality.window``, newest first; of reference and ops tables any.

    When a row was written counts, not its event time: months-old readings that come in now are looked at too. At most
    ``MOST_ROWS``, of the newest files that hold as many.
    """
    lakehouse = context.lakehouse
    if not lakehouse.exists(table.stored):
        return pl.DataFrame(schema=table.schema)
    head = lakehouse.head(table.stored).batch_id
    where = changes(before_window(context, table, head), head)
    files = newest_files(context, table, lakehouse.files(table.stored, where))
    rows = lakehouse.read_files(table.stored, files, where)
    return rows.sort("batch_id", descending=True, maintain_order=True).head(MOST_ROWS)


def before_window(context: Context, table: Table, head: int) -> int:
    """The last batch of a table that was committed before the window began."""
    if table.layer in _STEADY:
        return 0
    context.lakehouse.table(batches.stored, refresh=True)
    since = context.clock() - context.config.quality.window
    where = (Among("table_name", [table.identifier]), Ranges("committed_at", [(since, FAR_FUTURE)]))
    first = context.lakehouse.read(batches.stored, *where, columns=["table_batch_id"]).to_series().min()
    return head if first is None else int(str(first)) - 1


def newest_files(context: Context, table: Table, files: list[DataFile]) -> list[DataFile]:
    """The newest files, at least one, within the bounds of rows and memory."""
    field = context.lakehouse.table(table.stored).schema().find_field(BATCH_ID).field_id
    chosen: list[DataFile] = []
    rows = size = 0
    for file in sorted(files, key=lambda f: from_bytes(LongType(), f.upper_bounds[field]), reverse=True):
        rows, size = rows + file.record_count, size + file.file_size_in_bytes
        if chosen and (rows > MOST_ROWS or size > _MOST_BYTES):
            break
        chosen.append(file)
    return chosen
