"""Upkeep of the tables: compaction, retention, snapshot expiry, sweep. Safe beside running batches and at any kill.

Every change is one Iceberg commit that loses against a batch; files are deleted only when no retained
snapshot holds them.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from assets.table import Table
from pipelines.context import Context
from pipelines.dropped import noted
from pipelines.gold_step import is_forgotten, passed_by_readers
from pipelines.micro_batch import record_batches
from pipelines.training import drop_old_models
from resources.durable_io import local_path
from resources.errors import CommitConflictError, SecchiError
from resources.file_index import bounds
from resources.row_order import sort_rows
from resources.selection import BATCH_ID

log = logging.getLogger(__name__)

MERGED_ROWS = 1_000_000
"""A merged file holds at most this many rows: a reader's and the merger's memory."""

SMALL_BYTES = 256 * 1024
"""Files up to this size are always worth merging."""

_RECORD_ATTEMPTS = 5


@dataclass
class Upkeep:
    """What maintenance did to one table."""

    table: str
    files_merged: int = 0
    files_dropped: int = 0
    snapshots_expired: int = 0
    files_deleted: int = 0
    error: str | None = None


def maintain(context: Context, on_table: Callable[[Upkeep], None] = lambda _: None) -> list[Upkeep]:
    """Compacts, drops, expires and sweeps every table that exists; one that fails does not stop the others."""
    _record(context)
    reports = []
    for table in context.tables.values():
        if not context.lakehouse.exists(table.stored):
            continue
        report = Upkeep(table.identifier)
        try:
            report.files_merged = compact(context, table)
            report.files_dropped = drop_old_rows(context, table)
            if dropped := drop_old_models(context, table):
                log.info("%s: dropped %d old models of it", table.identifier, dropped)
            report.snapshots_expired, report.files_deleted = expire(context, table)
            report.files_deleted += sweep(context, table)
        except (SecchiError, OSError) as error:
            report.error = str(error)
            log.error("maintenance of %s: %s", table.identifier, error)
        on_table(report)
        reports.append(report)
    return reports


def _record(context: Context) -> None:
    """Records the commits before their snapshots may go; a batch may be recording too."""
    for left in reversed(range(_RECORD_ATTEMPTS)):
        try:
            record_batches(context)
            return
        except CommitConflictError:
            if not left:
                raise


def compact(context: Context, table: Table) -> int:
    """Merges small files within a partition, similar sizes first; rows keep their batch_id. Returns their number.

    Retracted rows that every reader has passed are left out.
    """
    context.lakehouse.table(table.stored, refresh=True)
    groups: dict[tuple[Any, ...], list[DataFile]] = defaultdict(list)
    for file in context.lakehouse.files(table.stored):
        groups[tuple(file.partition[i] for i in range(len(file.partition)))].append(file)
    newest = max((partition[-1] for partition in groups if partition), default=None)
    merged = 0
    for partition, files in groups.items():
        is_open = not partition or partition[-1] == newest
        at_least = context.config.maintenance.compact_files if is_open else 2
        chosen = _similar(files)
        if len(chosen) < at_least:
            continue
        rows = context.lakehouse.read_files(table.stored, chosen).filter(~is_forgotten(context, table))
        rows = sort_rows(rows, table.stored.sort)
        if context.lakehouse.rewrite(table.stored, chosen, context.lakehouse.write_sorted(table.stored, rows)):
            merged += len(chosen)
        context.lakehouse.table(table.stored, refresh=True)
    return merged


def _similar(files: Iterable[DataFile]) -> list[DataFile]:
    """The smallest files up to one that outweighs all before it: a row is rewritten a logarithmic number of times."""
    chosen: list[DataFile] = []
    size = rows = 0
    for file in sorted(files, key=lambda f: f.file_size_in_bytes):
        outweighs = file.file_size_in_bytes > max(2 * size, SMALL_BYTES)
        if outweighs or rows + file.record_count > MERGED_ROWS:
            break
        chosen.append(file)
        size, rows = size + file.file_size_in_bytes, rows + file.record_count
    return chosen


def drop_old_rows(context: Context, table: Table) -> int:
    """Drops files whose rows are all older than the table's retention and that every reader has passed."""
    keep = context.config.maintenance.retention.get(table.identifier)
    if keep is None or table.time is None:
        return 0
    iceberg = context.lakehouse.table(table.stored, refresh=True)
    cutoff, passed = context.clock() - keep, passed_by_readers(context, table)
    files = context.lakehouse.files(table.stored)
    limits = [(file, bounds(iceberg, file, table.time), bounds(iceberg, file, BATCH_ID)) for file in files]
    old = {
        file: times[1]
        for file, times, batches in limits
        if times and batches and times[1] < cutoff and batches[1] <= passed
    }
    if not old:
        return 0
    note = noted(context, table, max(old.values()))
    return len(old) if context.lakehouse.rewrite(table.stored, list(old), (), note) else 0


def expire(context: Context, table: Table) -> tuple[int, int]:
    """Expires old snapshots, never the current nor a tagged one, and deletes the files that only they held."""
    settings = context.config.maintenance
    iceberg = context.lakehouse.table(table.stored, refresh=True)
    snapshots = sorted(iceberg.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    cutoff = (context.clock() - settings.keep_snapshots_for).timestamp() * 1000
    protected = {ref.snapshot_id for ref in iceberg.metadata.refs.values()}
    old = [
        s for s in snapshots[: -settings.keep_snapshots] if s.timestamp_ms < cutoff and s.snapshot_id not in protected
    ]
    if not old:
        return 0, 0
    gone = {s.snapshot_id for s in old}
    kept = [s for s in snapshots if s.snapshot_id not in gone]
    manifests_kept = _manifests(iceberg, kept)
    manifests_old = {p: m for p, m in _manifests(iceberg, old).items() if p not in manifests_kept}
    live = _entries(iceberg, manifests_kept)
    dead = _entries(iceberg, manifests_old) - live
    if not context.lakehouse.expire(table.stored, sorted(gone)):
        return 0, 0
    lists = {s.manifest_list for s in old}
    doomed = dead | set(manifests_old) | lists
    for location in doomed:
        _delete(iceberg, location)
    context.lakehouse.table(table.stored, refresh=True)
    return len(old), len(doomed)


def _manifests(iceberg: IcebergTable, snapshots: Sequence[Snapshot]) -> dict[str, object]:
    return {m.manifest_path: m for s in snapshots for m in s.manifests(iceberg.io)}


def _entries(iceberg: IcebergTable, manifests: dict[str, object]) -> set[str]:
    return {
        entry.data_file.file_path
        for manifest in manifests.values()
        for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=False)  # type: ignore[attr-defined]
    }


def _delete(iceberg: IcebergTable, location: str) -> None:
    try:
        iceberg.io.delete(location)
    except FileNotFoundError:
        log.debug("%s was deleted already", location)


def sweep(context: Context, table: Table) -> int:
    """Deletes files of a local warehouse that no retained snapshot holds and that are older than ``sweep_after``.

    They are left by attempts that never committed. The age keeps files of a batch that is being written.
    """
    iceberg = context.lakehouse.table(table.stored, refresh=True)
    root = local_path(iceberg.location())
    if root is None:
        return 0
    cutoff = (context.clock() - context.config.maintenance.sweep_after).timestamp()
    old = list(_older(root, cutoff))
    if not old:
        return 0
    held = _held(iceberg)
    orphans = [p for p in old if p not in held]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def _older(root: Path, cutoff: float) -> Iterator[Path]:
    for path in root.rglob("*"):
        with suppress(FileNotFoundError):  # each commit deletes the oldest metadata
            if path.is_file() and path.stat().st_mtime < cutoff:
                yield path


def _held(iceberg: IcebergTable) -> set[Path]:
    metadata = iceberg.metadata
    manifests = _manifests(iceberg, metadata.snapshots)
    locations = {
        iceberg.metadata_location,
        *(entry.metadata_file for entry in metadata.metadata_log),
        *(s.manifest_list for s in metadata.snapshots),
        *manifests,
        *_entries(iceberg, manifests),
    }
    return {path for location in locations if (path := local_path(location)) is not None}
