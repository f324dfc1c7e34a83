"""Where each table stands, from the catalog, the metadata of the tables and landing. Nothing is scanned or created."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import TimestamptzType

from assets.ops.requests import requests
from assets.ops.watermarks import watermarks
from assets.table import Table
from pipelines.context import Context
from pipelines.gold_plan import due_windows
from pipelines.micro_batch import streaming_tables
from pipelines.printing import counted
from pipelines.reference_refresh import problem_in
from resources.commit import Head
from resources.duckdb import stored_tables
from resources.landing import sealed_segments
from resources.selection import Ranges
from resources.stored_table import StoredTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Extent:
    """How large a table is, and how far its event time and its commits have come."""

    table: str
    rows: int = 0
    files: int = 0
    bytes: int = 0
    newest: datetime | None = None
    committed_at: datetime | None = None


def extents(context: Context) -> list[Extent]:
    """The extent of every declared table, upstream first."""
    stored = _stored(context)
    return [_extent(context, table, stored.get(table.identifier)) for table in context.tables.values()]


def extent(context: Context, table: Table) -> Extent:
    """The extent of one table."""
    return _extent(context, table, _stored(context).get(table.identifier))


def _stored(context: Context) -> dict[str, StoredTable]:
    """The tables as the catalog has them: opening one by its declaration would create or change it."""
    return {table.identifier: table for table in stored_tables(context.lakehouse)}


def _extent(context: Context, table: Table, stored: StoredTable | None) -> Extent:
    if stored is None:
        return Extent(table.identifier)
    iceberg = context.lakehouse.table(stored, refresh=True)
    snapshot = iceberg.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return Extent(table.identifier)
    rows, files, size = (
        int(snapshot.summary.get(name) or 0) for name in ("total-records", "total-data-files", "total-files-size")
    )
    newest = _newest(iceberg, table.time, context.lakehouse.files(stored)) if table.time else None
    return Extent(table.identifier, rows, files, size, newest, _EPOCH + timedelta(milliseconds=snapshot.timestamp_ms))


def _newest(iceberg: IcebergTable, column: str, files: Iterable[DataFile]) -> datetime | None:
    field_id = iceberg.schema().find_field(column).field_id
    bounds = [file.upper_bounds[field_id] for file in files if field_id in (file.upper_bounds or {})]
    micros = max((int(from_bytes(TimestamptzType(), bound)) for bound in bounds), default=None)
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def backlog(context: Context) -> dict[str, str | None]:
    """What each streaming table has still to take, in words; None where it is up to date."""
    stored = _stored(context)
    heads = {identifier: context.lakehouse.head(table) for identifier, table in stored.items()}
    return {t.identifier: _backlog(context, t, heads) for t in streaming_tables(context)}


def _backlog(context: Context, table: Table, heads: dict[str, Head]) -> str | None:
    marker = heads.get(table.identifier, Head()).markers.get(table.identifier, {})
    if table.step == "state":
        return problem_in(marker)
    if table.step == "take":
        segments = sealed_segments(context.landing, table.name)
        waiting = sum(segment.sequence > marker.get(segment.stream, 0) for segment in segments)
        return counted(waiting, "segment") if waiting else None
    behind = [
        f"{counted(count, 'batch')} of {source.identifier}"
        for source in table.inputs
        if (count := heads.get(source.identifier, Head()).batch_id - marker.get(source.identifier, 0)) > 0
    ]
    if asked := _requests(context, table, heads, marker.get(requests.identifier, 0)):
        behind.append(counted(asked, "request"))
    if not behind and table.step == "compute" and {table.identifier, watermarks.identifier} <= heads.keys():
        due = due_windows(context, table).height
        behind += [f"{counted(due, 'window')} due"] if due else []
    return ", ".join(behind) or None


def _requests(context: Context, table: Table, heads: dict[str, Head], taken: int) -> int:
    head = heads.get(requests.identifier, Head()).batch_id
    if taken >= head:
        return 0
    where = Ranges("batch_id", [(taken + 1, head + 1)])
    asked = context.lakehouse.read(requests.stored, where, columns=["table_name"])
    return asked.filter(pl.col("table_name") == table.identifier).height
