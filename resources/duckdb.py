"""DuckDB over the lakehouse: a view a table, over the files of its current snapshot. Nothing is written through it.

DuckDB itself may touch no file system at all. It reads through ``_PlannedFiles``, which knows the planned files of each
table and opens them for reading only. DuckDB's own ``allowed_directories`` lets ``COPY ... TO`` replace a data file.
"""

import atexit
import threading
import weakref
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
from duckdb import DuckDBPyConnection
from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from resources.durable_io import unreadable_file
from resources.errors import SchemaMismatchError
from resources.geodesy import GREAT_CIRCLE, GREAT_CIRCLE_PARAMETERS, GREAT_CIRCLE_SQL
from resources.lakehouse import Lakehouse
from resources.quantile_sketch import SKETCH_FUNCTIONS
from resources.stored_table import StoredTable

_PROTOCOL = "lakehouse"
_FOREVER = datetime(2000, 1, 1, tzinfo=UTC)
_NO_FIELD = 1_000_000  # ids from here on are in no file: the column reads as null


class _SharedReader:
    """A file in which each thread has its own position: DuckDB's threads share it, and seek and read are two calls."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._size = stream, stream.size()
        self._position = threading.local()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position.value = offset + (0, self.tell(), self._size)[whence]
        return self.tell()

    def tell(self) -> int:
        return getattr(self._position, "value", 0)

    def read(self, length: int = -1) -> bytes:
        rest = max(self._size - self.tell(), 0)
        data: bytes = self._stream.read_at(rest if length < 0 else min(length, rest), self.tell())
        self._position.value = self.tell() + len(data)
        return data

    def close(self) -> None:
        self._stream.close()


class _PlannedFiles(AbstractFileSystem):  # type: ignore[misc]
    """The data files of the views, by the name that DuckDB sees: ``lakehouse://layer.table/file``."""

    protocol = _PROTOCOL
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[str, dict[str, tuple[FileIO, DataFile]]] = {}

    def replace(self, table: str, io: FileIO, files: Iterable[DataFile]) -> list[str]:
        """Takes the files as those of the table; returns their names."""
        self._tables[table] = {f"{table}/{file.file_path.rsplit('/', 1)[-1]}": (io, file) for file in files}
        return [f"{_PROTOCOL}://{name}" for name in self._tables[table]]

    def _find(self, path: str) -> tuple[FileIO, DataFile] | None:
        name = path.removeprefix(f"{_PROTOCOL}://")
        return self._tables.get(name.split("/", 1)[0], {}).get(name)

    def open(self, path: str, mode: str = "rb", **_: Any) -> _SharedReader:
        """Opens a planned file for reading."""
        found = self._find(path)
        if mode != "rb" or found is None:
            raise PermissionError(f"{path}: the lakehouse is read-only here, and only files of its views can be read")
        io, file = found
        if problem := unreadable_file([file]):
            raise FileNotFoundError(problem)
        return _SharedReader(io.new_input(file.file_path).open())

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size, from the table's metadata."""
        if (found := self._find(path)) is None:
            raise FileNotFoundError(path)
        return {"name": path, "size": found[1].file_size_in_bytes, "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file itself: patterns match nothing."""
        return [path] if self._find(path) else []

    def modified(self, _path: str) -> datetime:
        """Always the same: a data file never changes, so DuckDB may keep what it read."""
        return _FOREVER


def stored_tables(lakehouse: Lakehouse) -> list[StoredTable]:
    """The tables that the catalog holds, as they are stored; reads, and neither creates nor changes one."""
    found = []
    for layer in sorted(lakehouse.catalog.list_namespaces()):
        for identifier in sorted(lakehouse.catalog.list_tables(layer)):
            schema = schema_to_pyarrow(lakehouse.catalog.load_table(identifier).schema(), include_field_ids=False)
            empty = pl.DataFrame(schema.empty_table())
            found.append(StoredTable(identifier[0], identifier[1], dict(empty.schema)))
    return found


class Views:
    """A locked connection with a view for each table; ``refresh`` brings the views up to the current snapshots."""

    def __init__(
        self, lakehouse: Lakehouse, tables: Iterable[StoredTable], connection: DuckDBPyConnection | None = None
    ) -> None:
        self.connection = connection or duckdb.connect()
        self._lakehouse, self._tables = lakehouse, list(tables)
        self._files = _PlannedFiles()
        self._snapshots: dict[str, int | None] = {}
        self._lock_down()
        for layer in sorted({t.layer for t in self._tables}):
            self.connection.execute(f"CREATE SCHEMA {_quoted(layer)}")
        self.refresh()

    def _lock_down(self) -> None:
        ours = {GREAT_CIRCLE: (GREAT_CIRCLE_PARAMETERS, GREAT_CIRCLE_SQL), **SKETCH_FUNCTIONS}
        for name, (parameters, body) in ours.items():
            self.connection.execute(f"CREATE OR REPLACE MACRO {name}({parameters}) AS {body}")
        self.connection.register_filesystem(self._files)
        self.connection.execute(
            f"""
            SET TimeZone = 'UTC';
            SET temp_directory = '';
            SET allowed_directories = ['{_PROTOCOL}://'];
            SET enable_external_access = false;
            SET disabled_filesystems = 'LocalFileSystem';
            SET lock_configuration = true;
            """
        )
        _close_at_exit(self.connection)

    def refresh(self) -> list[str]:
        """Rebuilds the views of tables whose snapshot is another than before; returns their names."""
        return [t.identifier for t in self._tables if self._refresh(t)]

    def _refresh(self, table: StoredTable) -> bool:
        found = _load(self._lakehouse, table)
        snapshot = found.current_snapshot() if found else None
        now = snapshot.snapshot_id if snapshot else None
        if table.identifier in self._snapshots and self._snapshots[table.identifier] == now:
            return False
        files = _plan(found) if found and snapshot else []
        names = self._files.replace(table.identifier, found.io, files) if found else []
        source = self._scan(table, found, names) if found and names else self._nothing(table)
        hidden = " WHERE is_retracted IS NOT TRUE" if "is_retracted" in table.schema else ""
        columns = ", ".join(map(_quoted, table.schema))
        name = f"{_quoted(table.layer)}.{_quoted(table.name)}"
        self.connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {columns} FROM {source}{hidden}")
        self._snapshots[table.identifier] = now
        return True

    def _scan(self, table: StoredTable, found: Table, names: list[str]) -> str:
        """The files, read by Iceberg field id: a file from before a column was added has nulls in it."""
        stored = schema_to_pyarrow(found.schema(), include_field_ids=False)
        types = {**self._types(_arrow(table)), **self._types(stored)}
        ids = {field.name: field.field_id for field in found.schema().fields}
        fields = ", ".join(
            f"{ids.get(name, _NO_FIELD + i)}: {{name: {_text(name)}, type: {_text(types[name])}, default_value: NULL}}"
            for i, name in enumerate(table.schema)
        )
        return f"read_parquet([{', '.join(map(_text, names))}], schema = MAP {{{fields}}})"

    def _nothing(self, table: StoredTable) -> str:
        types = self._types(_arrow(table))
        columns = ", ".join(f"CAST(NULL AS {types[name]}) AS {_quoted(name)}" for name in table.schema)
        return f"(SELECT {columns} LIMIT 0)"

    def _types(self, schema: pa.Schema) -> dict[str, str]:
        relation = self.connection.from_arrow(schema.empty_table())
        return dict(zip(relation.columns, map(str, relation.types), strict=True))


def connect(lakehouse: Lakehouse, tables: Iterable[StoredTable]) -> DuckDBPyConnection:
    """An in-memory DuckDB with a view ``layer.table`` for each table, empty where nothing is stored yet.

    It reads the files of those views and nothing else; it writes nowhere, and its settings are locked.
    """
    return Views(lakehouse, tables).connection


def _load(lakehouse: Lakehouse, table: StoredTable) -> Table | None:
    try:
        return lakehouse.catalog.load_table(table.identifier)
    except NoSuchTableError:
        return None


def _plan(table: Table) -> list[DataFile]:
    tasks = list(table.scan().plan_files())
    if any(task.delete_files for task in tasks):
        raise SchemaMismatchError(f"{'.'.join(table.name())}: has row-level deletes, which Secchi never writes")
    return [task.file for task in tasks]


def _arrow(table: StoredTable) -> pa.Schema:
    return pl.DataFrame(schema=table.schema).to_arrow().schema


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _close_at_exit(connection: DuckDBPyConnection) -> None:
    """Closes at the end of the process; DuckDB prints a report of leaks if a registered file system outlives it."""
    alive = weakref.ref(connection)

    def close() -> None:
        if (left := alive()) is not None:
            left.close()

    atexit.register(close)
