"""Housekeeping of Dagster's own storage: old runs with all that belongs to them, old ticks, the size of its files.

Dagster keeps every run for ever. Deleting one through its API leaves the run's tags, the results of its checks, what
its steps printed and, in the default storage, the file of its events; they are deleted here too. The tables of
Dagster's storage are known in this module only, and the version of Dagster is pinned.
"""

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from pipelines.config import Config
from pipelines.run_process import FINISHED, IN_FLIGHT, OWNER, UPKEEP, open_run
from resources.durations import spelled

log = logging.getLogger(__name__)

HOUSEKEEPING = dg.AssetKey(["ops", "housekeeping"])

SKIPPED_TICKS_FOR = timedelta(hours=1)
"""A sensor that ticks every 5 s and finds nothing writes 17,000 ticks a day."""

_PAGE = 200
_VACUUM_BYTES = 16 * 2**20
_VACUUM_SHARE = 0.25
_FILES = ("event_log.db", "history/runs.db", "history/runs/index.db", "schedules/schedules.db")


@dataclass
class Cleaned:
    """What housekeeping did, and how large Dagster's files are now."""

    runs_deleted: int = 0
    checks_deleted: int = 0
    files_vacuumed: int = 0
    bytes: int = 0


def clean(
    instance: dg.DagsterInstance,
    keep_runs_for: timedelta,
    now: datetime,
    own_run: str | None = None,
) -> Cleaned:
    """Deletes what is older than ``keep_runs_for``; ``own_run`` is the run that does it and is no reason to wait."""
    cutoff = now - keep_runs_for
    cleaned = Cleaned(runs_deleted=_delete_runs(instance, cutoff), checks_deleted=_delete_checks(instance, cutoff))
    _delete_ticks(instance, cutoff, now - SKIPPED_TICKS_FOR)
    files = _files(instance)
    if not _others_work(instance, own_run):
        cleaned.files_vacuumed = sum(_vacuum(file) for file in files)
    cleaned.bytes = sum(file.stat().st_size for file in files)
    return cleaned


def _delete_runs(instance: dg.DagsterInstance, cutoff: datetime) -> int:
    old = dg.RunsFilter(statuses=list(FINISHED), updated_before=cutoff)
    deleted = 0
    while records := instance.get_run_records(old, limit=_PAGE, ascending=True):
        for record in records:
            _delete_run(instance, record.dagster_run.run_id)
        deleted += len(records)
    return deleted


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    from dagster._core.storage.event_log import SqliteEventLogStorage
    from dagster._core.storage.runs.schema import RunTagsTable
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

    instance.delete_run(run_id)
    if isinstance(storage := instance.run_storage, SqlRunStorage):
        with storage.connect() as connection:
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id == run_id))
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    if isinstance(events := instance.event_log_storage, SqliteEventLogStorage):
        for ending in ("", "-wal", "-shm"):
            Path(events.path_for_shard(run_id) + ending).unlink(missing_ok=True)


def _delete_checks(instance: dg.DagsterInstance, cutoff: datetime) -> int:
    """Deletes old results of asset checks, but never the last one of a check."""
    import sqlalchemy as db
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Checks
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    last = db.select(db.func.max(Checks.c.id)).group_by(Checks.c.asset_key, Checks.c.check_name)
    before = cutoff.astimezone(UTC).replace(tzinfo=None)  # Dagster stores UTC without a zone
    old = db.and_(Checks.c.create_timestamp < before, Checks.c.id.not_in(last))
    with storage.index_connection() as connection:
        return int(connection.execute(Checks.delete().where(old)).rowcount)


def _delete_ticks(instance: dg.DagsterInstance, cutoff: datetime, skipped_cutoff: datetime) -> None:
    from dagster._core.scheduler.instigation import TickStatus

    for state in instance.all_instigator_state():
        names = state.instigator_origin_id, state.selector_id
        instance.purge_ticks(*names, before=skipped_cutoff.timestamp(), tick_statuses=[TickStatus.SKIPPED])
        instance.purge_ticks(*names, before=cutoff.timestamp())


def _others_work(instance: dg.DagsterInstance, own_run: str | None) -> bool:
    records = instance.get_run_records(dg.RunsFilter(statuses=list(IN_FLIGHT)), limit=2)
    return any(record.dagster_run.run_id != own_run for record in records)


def _files(instance: dg.DagsterInstance) -> list[Path]:
    """The SQLite files of the storage that ``pipelines/dagster.yaml`` or Dagster's default sets up."""
    root = Path(instance.root_directory)
    return [file for name in _FILES if (file := root / name).exists()]


def _vacuum(file: Path) -> bool:
    """Gives a file's free pages back when they are many; writers wait meanwhile, seconds at the most."""
    with closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as connection:
        free, pages, size = (_pragma(connection, name) for name in ("freelist_count", "page_count", "page_size"))
        if free * size < _VACUUM_BYTES or free < pages * _VACUUM_SHARE:
            return False
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            log.info("%s: not vacuumed now: %s", file, error)
            return False
    return True


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def housekeeping_asset(config: Config) -> dg.AssetsDefinition:
    """Housekeeping as an asset, so that what it did can be plotted."""

    @dg.asset(
        key=HOUSEKEEPING,
        description=f"Deletes runs that ended more than {spelled(config.maintenance.keep_runs_for)} ago (their "
        "events, logs, tags and check results) and old ticks, and keeps the files of Dagster's storage small.",
        kinds={"dagster", "sqlite"},
        owners=[OWNER],
        group_name="ops",
        pool=UPKEEP,
    )
    def housekeeping(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with open_run(config, context.instance, context.run):
            cleaned = clean(context.instance, config.maintenance.keep_runs_for, datetime.now(UTC), context.run.run_id)
        return dg.MaterializeResult(metadata=vars(cleaned))

    return housekeeping
