"""Storage: Iceberg tables behind one catalog, read as polars frames, written by one fenced commit."""

import fcntl
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import polars as pl
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from sqlalchemy.exc import SQLAlchemyError

from resources.commit import Commit, Head, head_of, stage, transact
from resources.durable_io import local_path, unreadable_file
from resources.errors import (
    CommitConflictError,
    ConfigurationError,
    SourceUnavailableError,
    reason_of,
)
from resources.file_index import FileIndex, bounds
from resources.iceberg import StagedTransaction, any_metadata_location, metadata_location, write_data_file
from resources.recent_frames import RecentFrames
from resources.row_order import sort_rows
from resources.selection import BATCH_ID, Where, changes
from resources.stored_table import Partition, StoredTable
from resources.table_schema import ADDED, added_columns, evolve, iceberg_schema, partition_spec, refuse_mismatch

FILE = "_file"
"""Pseudo column of ``read_files``: the location of the data file that a row stands in."""
_TABLE_PROPERTIES = {
    # pyiceberg would append again after a lost race; commit_once decides that itself.
    "commit.retry.num-retries": "0",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}
_COMMIT_ATTEMPTS = 8
_RECENT_BYTES = 256 * 2**20


class Lakehouse:
    """The catalog and its tables. One committer a table; readers anywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        warehouse = (path / "warehouse").absolute()
        try:
            warehouse.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._refuse_lost_catalog(warehouse)
                self.catalog = SqlCatalog(
                    "secchi",
                    uri=f"sqlite:///{(path / 'catalog.db').absolute()}",
                    warehouse=f"file://{warehouse}",
                    **{"py-io-impl": "resources.durable_io.DurableFileIO"},
                )
            self._refuse_copy(warehouse)
        except OSError as error:
            raise SourceUnavailableError(f"lakehouse.path: cannot write {reason_of(error)}") from error
        except SQLAlchemyError as error:
            catalog = path / "catalog.db"
            raise SourceUnavailableError(f"catalog {catalog}: {reason_of(error)}; restore it from a backup") from error
        self._tables: dict[str, Table] = {}
        self._recent = RecentFrames(_RECENT_BYTES)
        self._index = FileIndex()
        self._writers: defaultdict[str, RLock] = defaultdict(RLock)

    def _refuse_lost_catalog(self, warehouse: Path) -> None:
        """A new catalog beside old tables would start them anew.

        Raises:
            ConfigurationError: there is no catalog, but there are tables.
        """
        if not (self.path / "catalog.db").exists() and any(warehouse.glob("*/*/metadata/*.json")):
            raise ConfigurationError(
                f"lakehouse {self.path}: {warehouse} holds tables, but catalog.db is gone; restore it, "
                "or name another lakehouse.path"
            )

    def _refuse_copy(self, warehouse: Path) -> None:
        """A catalog names its files by absolute place: a copy would write into the original, and sweep it.

        Raises:
            ConfigurationError: the tables are elsewhere.
        """
        location = any_metadata_location(self.catalog)
        path = local_path(location) if location else None
        if path is not None and not path.resolve().is_relative_to(warehouse.resolve()):
            raise ConfigurationError(
                f"lakehouse {self.path}: was moved or copied; its catalog points to {path}: put it back in its place"
            )

    # --- tables ------------------------------------------------------------------------------------------------

    def table(self, stored: StoredTable, *, refresh: bool = False) -> Table:
        """The pyiceberg table, created or given new nullable columns when the declaration has them.

        Raises:
            SchemaMismatchError: the stored schema differs by more than new nullable columns.
            SourceUnavailableError: the catalog does not answer.
        """
        known = self._tables.get(stored.identifier)
        if known is not None and not refresh:
            return known
        try:
            if known is not None:
                if metadata_location(self.catalog, stored.layer, stored.name) == known.metadata_location:
                    return known
                known = self.catalog.load_table(stored.identifier)
            else:
                known = self._first_opened(stored)
        except (SQLAlchemyError, OSError) as error:
            raise SourceUnavailableError(f"catalog {self.path / 'catalog.db'}: {reason_of(error)}") from error
        self._tables[stored.identifier] = known
        return known

    def compare(self, stored: StoredTable) -> None:
        """Compares a stored table with its declaration, and raises as ``table`` does; creates and changes nothing."""
        try:
            found = self.catalog.load_table(stored.identifier)
        except NoSuchTableError:
            return
        except (SQLAlchemyError, OSError) as error:
            raise SourceUnavailableError(f"catalog {self.path / 'catalog.db'}: {reason_of(error)}") from error
        refuse_mismatch(found, stored, iceberg_schema(stored))

    def exists(self, stored: StoredTable) -> bool:
        """Whether the table has been created.

        Raises:
            SourceUnavailableError: the catalog does not answer.
        """
        try:
            return stored.identifier in self._tables or self.catalog.table_exists(stored.identifier)
        except (SQLAlchemyError, OSError) as error:
            raise SourceUnavailableError(f"catalog {self.path / 'catalog.db'}: {reason_of(error)}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process or thread at a time makes the catalog, a namespace, a table or its new columns."""
        lock = os.open(self.path / "catalog.lock", os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _first_opened(self, stored: StoredTable) -> Table:
        for attempt in range(_COMMIT_ATTEMPTS):
            try:
                with self._alone():
                    return self._create_or_evolve(stored)
            except CommitFailedException:  # a new column met a commit of rows
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise SourceUnavailableError(f"{stored.identifier}: {_COMMIT_ATTEMPTS} changes of its schema met a commit")

    def _create_or_evolve(self, stored: StoredTable) -> Table:
        schema = iceberg_schema(stored)
        try:
            found = self.catalog.load_table(stored.identifier)
        except NoSuchTableError:
            self.catalog.create_namespace_if_not_exists(stored.layer)
            metrics = {f"write.metadata.metrics.column.{name}": "none" for name in stored.wide}
            return self.catalog.create_table_if_not_exists(
                stored.identifier,
                schema,
                partition_spec=partition_spec(stored, schema),
                properties={**_TABLE_PROPERTIES, **metrics},
            )
        return evolve(found, stored, schema)

    def added_columns(self, stored: StoredTable) -> dict[str, tuple[pl.DataType, str]]:
        """The columns that ``add_columns`` has added: type and description; creates nothing."""
        try:
            schema = self.catalog.load_table(stored.identifier).schema()
        except NoSuchTableError:
            return {}
        return added_columns(schema)

    def add_columns(self, stored: StoredTable, columns: Mapping[str, tuple[Any, str]]) -> None:
        """Adds columns to a stored table that its declaration does not have; rows that are there have null in them.

        Raises:
            SourceUnavailableError: storage or catalog did not answer.
        """
        wanted = iceberg_schema(replace(stored, schema={name: dtype for name, (dtype, _) in columns.items()}))
        for attempt in range(_COMMIT_ATTEMPTS):
            table = self.table(stored, refresh=True)
            have = {field.name for field in table.schema().fields}
            try:
                with _told(stored), table.update_schema() as update:
                    for field in wanted.fields:
                        if field.name not in have:
                            update.add_column(field.name, field.field_type, ADDED + columns[field.name][1])
            except CommitFailedException:  # a new column met a commit of rows
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
                continue
            self.table(stored, refresh=True)
            return
        raise SourceUnavailableError(f"{stored.identifier}: {_COMMIT_ATTEMPTS} changes of its schema met a commit")

    def head(self, stored: StoredTable) -> Head:
        """Reads the table's batch_id, markers and snapshot from the catalog."""
        return head_of(self.table(stored, refresh=True))

    # --- reading -----------------------------------------------------------------------------------------------

    def files(self, stored: StoredTable, *where: Where) -> list[DataFile]:
        """The data files that may hold rows of ``where``, at the table's last loaded snapshot."""
        return self._index.files(self.table(stored), where)

    def read(self, stored: StoredTable, *where: Where, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of ``where`` with the declared types, in no particular order."""
        return self.read_files(stored, self.files(stored, *where), *where, columns=columns)

    def read_files(
        self, stored: StoredTable, files: Sequence[DataFile], *where: Where, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """The rows of ``where`` in the given files; with ``FILE`` among the columns, each with its file's place."""
        schema = {name: stored.schema.get(name, pl.String()) for name in (columns or stored.schema)}
        needed = {n: t for n, t in schema.items() if n != FILE} | {w.column: stored.schema[w.column] for w in where}
        recent = self._recent.among(f.file_path for f in files)
        frames = [
            frame.lazy().with_columns(pl.lit(path).alias(FILE), *_absent(frame, needed))
            for path, frame in recent.items()
        ]
        if len(recent) < len(files):
            frames.append(_scan([f.file_path for f in files if f.file_path not in recent], needed))
        if not frames:
            return pl.DataFrame(schema=schema)
        conditions = [w.polars() for w in where]
        parts = [frame.filter(*conditions).select(*schema) for frame in frames]
        try:
            return pl.concat(parts).collect()
        except (OSError, pl.exceptions.ComputeError) as error:
            place = unreadable_file(files) or reason_of(error)
            raise SourceUnavailableError(f"{stored.identifier}: {place}") from error

    def batch_within(self, stored: StoredTable, after: int, head: int, most_rows: int) -> int:
        """The last batch_id of a range (after, it] that holds at most ``most_rows`` rows, but at least one batch."""
        if after >= head:
            return head
        table = self.table(stored, refresh=True)
        rows, until = 0, after
        counted = sorted(
            (limits[1] if (limits := bounds(table, file, BATCH_ID)) else head, file.record_count)
            for file in self.files(stored, changes(after, head))
        )
        for batch_id, count in counted:
            rows += count
            if rows > most_rows and until > after and batch_id > until:
                return until
            until = batch_id
        return head

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, stored: StoredTable, rows: pl.DataFrame, batch_id: int) -> list[DataFile]:
        """Writes rows in the table's order, one file a partition, stamped with ``batch_id``; commits nothing."""
        if rows.is_empty():
            return []
        frame = rows.with_columns(pl.lit(batch_id, pl.Int64).alias(BATCH_ID)).select(
            pl.col(name).cast(dtype) for name, dtype in stored.schema.items()
        )
        return self.write_sorted(stored, sort_rows(frame, stored.sort))

    def write_sorted(self, stored: StoredTable, rows: pl.DataFrame) -> list[DataFile]:
        """Writes rows as they stand (declared types and batch_id included), one file a partition."""
        table = self.table(stored)
        cuts = [_partition_value(p) for p in stored.partitions]
        files = []
        for part in _split(rows, cuts):
            file = write_data_file(table, part)
            self._recent.put(file.file_path, part)
            files.append(file)
        return files

    def sole_writer(self, stored: StoredTable) -> RLock:
        """Held from the plan to the commit of a table that several steps of this process write.

        The fence alone would be right too, but the step that comes second would have worked for nothing.
        """
        return self._writers[stored.identifier]

    def commit_once(self, commit: Commit) -> Literal["committed", "already"]:
        """Makes one snapshot of the commit's files, its batch_id and its marker; safe to call again after any outcome.

        Returns ``"already"`` when the marker stands at ``to``: an earlier call did it.

        Raises:
            CommitConflictError: the marker is at neither place, or another commit took the batch_id; plan again.
            SourceUnavailableError: storage or catalog did not answer, and the marker has not moved.
        """
        for attempt in range(_COMMIT_ATTEMPTS):
            table = self.table(commit.table, refresh=True)
            head = head_of(table)
            if head.markers.get(commit.producer, {}) == commit.to and commit.to != commit.frm:
                return "already"
            if head.markers.get(commit.producer, {}) != commit.frm or head.batch_id != commit.batch_id - 1:
                raise CommitConflictError(f"{commit.table.identifier}: {commit.producer} is no longer at {commit.frm}")
            try:
                transact(table, commit)
                return "committed"
            except ValidationException as error:
                raise CommitConflictError(
                    f"{commit.table.identifier}: a file of the plan was compacted away"
                ) from error
            except CommitFailedException:
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
            except (SQLAlchemyError, OSError) as error:
                # The outcome is unknown: the marker tells. No file is deleted here.
                if self._has_committed(commit):
                    return "committed"
                reason = f"{commit.table.identifier}: commit failed: {reason_of(error)}"
                raise SourceUnavailableError(reason) from error
        raise SourceUnavailableError(f"{commit.table.identifier}: {_COMMIT_ATTEMPTS} commits met another writer")

    def _has_committed(self, commit: Commit) -> bool:
        head = head_of(self.table(commit.table, refresh=True))
        return head.batch_id == commit.batch_id and head.markers.get(commit.producer, {}) == commit.to

    def rewrite(
        self,
        stored: StoredTable,
        delete: Sequence[DataFile],
        add: Sequence[DataFile],
        properties: Mapping[str, str] | None = None,
    ) -> bool:
        """Replaces files by others with the same or fewer rows, and sets properties; False if another commit won.

        Raises:
            SourceUnavailableError: storage or catalog did not answer.
        """
        table = self.table(stored)
        try:
            with _told(stored), StagedTransaction(table) as transaction:
                stage(transaction, table, add, delete, {"secchi.producer": "maintenance"})
                if properties:
                    transaction.set_properties(dict(properties))
        except (CommitFailedException, ValidationException):
            return False
        return True

    def expire(self, stored: StoredTable, snapshot_ids: list[int]) -> bool:
        """Forgets snapshots, not their files; False if another commit came between. Raises as ``rewrite`` does."""
        try:
            with _told(stored):
                self.table(stored).maintenance.expire_snapshots().by_ids(snapshot_ids).commit()
        except CommitFailedException:
            return False
        return True


@contextmanager
def _told(stored: StoredTable) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise SourceUnavailableError(f"{stored.identifier}: commit failed: {reason_of(error)}") from error


def _absent(frame: pl.DataFrame, needed: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """Nulls for the columns that were added after a frame was written."""
    return [pl.lit(None, dtype).alias(name) for name, dtype in needed.items() if name not in frame.columns]


def _split(rows: pl.DataFrame, cuts: list[pl.Expr]) -> list[pl.DataFrame]:
    if not cuts:
        return [rows]
    names = [f"_cut{i}" for i in range(len(cuts))]
    marked = rows.with_columns(cut.alias(name) for cut, name in zip(cuts, names, strict=True))
    return marked.partition_by(names, maintain_order=True, include_key=False)


def _partition_value(partition: Partition) -> pl.Expr:
    column = pl.col(partition.column)
    return {"identity": column, "hour": column.dt.truncate("1h"), "day": column.dt.truncate("1d")}[partition.transform]


def _scan(locations: list[str], schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    local = {str(path): location for location in locations if (path := local_path(location))}
    frame = pl.scan_parquet(
        list(local) or locations,
        schema=pl.Schema(schema),
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
        include_file_paths=FILE,
    )
    return frame.with_columns(pl.col(FILE).replace(local)) if local else frame
