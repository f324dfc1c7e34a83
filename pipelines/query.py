"""One SQL statement over the lakehouse, and what is wrong with it in one line."""

import difflib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import duckdb
from duckdb import DuckDBPyConnection, StatementType

from assets.threshold import EVENTS
from resources.errors import SecchiError

T = TypeVar("T")
_READING = {StatementType.SELECT, StatementType.MULTI}  # MULTI is a PIVOT
_EXPLAIN = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*EXPLAIN\b\s*(?:\([^)]*\)|ANALYZE\b)?(.*)", re.IGNORECASE | re.DOTALL
)
_CHUNK = 10_000
_UNKNOWN_TABLE = re.compile(r'Table with name "?([\w.]+)"? does not exist')


class QueryError(SecchiError):
    """A statement that cannot be run, with DuckDB's reason."""


class Result:
    """The rows of a statement, fetched as they are asked for."""

    def __init__(self, connection: DuckDBPyConnection, most: int | None) -> None:
        self._connection, self._most = connection, most
        self.columns = [str(column[0]) for column in connection.description or []]
        self.is_cut = False

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, at most as many as were asked for; then ``is_cut`` tells whether there are more."""
        left = self._most
        while chunk := self._fetch(_CHUNK if left is None else min(_CHUNK, left + 1)):
            if left is None:
                yield from chunk
                continue
            yield from chunk[:left]
            self.is_cut = len(chunk) > left
            left -= min(len(chunk), left)
            if self.is_cut:
                return

    def _fetch(self, count: int) -> list[tuple[Any, ...]]:
        with _one_line(self._connection):
            return _interruptible(self._connection, lambda: self._connection.fetchmany(count))


def open_query(connection: DuckDBPyConnection, statement: str, most: int | None = None) -> Result:
    """Runs one statement that reads; ``most`` bounds the rows.

    Raises:
        QueryError: it is no single reading statement, or DuckDB refuses it.
    """
    with _one_line(connection):
        statements = connection.extract_statements(statement)
        if len(statements) != 1:
            raise QueryError(f"one SQL statement is expected, got {len(statements)}")
        if (kind := _kind(connection, statements[0])) not in _READING:
            raise QueryError(f"{kind.name} is refused: the lakehouse is read-only here; SELECT, SHOW, DESCRIBE read it")
        _interruptible(connection, lambda: connection.execute(statements[0]))
    return Result(connection, most)


def _kind(connection: DuckDBPyConnection, statement: duckdb.Statement) -> StatementType:
    """The type of a statement; of EXPLAIN, that of what it explains, since EXPLAIN ANALYZE runs it."""
    explained = _EXPLAIN.match(statement.query)
    inner = connection.extract_statements(explained[1]) if explained else []
    return _kind(connection, inner[0]) if inner else statement.type


def _interruptible(connection: DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Runs work of DuckDB in a thread: only so does Ctrl-C reach this one, which then interrupts the query."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


@contextmanager
def _one_line(connection: DuckDBPyConnection) -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        raise QueryError(_explain(connection, str(error))) from error


def _explain(connection: DuckDBPyConnection, message: str) -> str:
    """DuckDB's message without the statement's text, and the nearest table where one is unknown."""
    first = message.split("\n\nLINE ")[0]
    if first.startswith("Traceback"):  # raised in Python, under DuckDB
        return re.sub(r"^\w+: ", "", first.splitlines()[-1])
    unknown = _UNKNOWN_TABLE.search(first)
    if unknown is None:
        return first
    first = first.split("\nDid you mean")[0].rstrip("!.")
    tables = _table_names(connection)
    if unknown[1].split(".")[-1] == EVENTS and f"gold.{EVENTS}" not in tables:
        return f"{first}; gold.{EVENTS} comes with the first [[threshold]] of the configuration"
    near = _nearest(unknown[1], tables)
    return f"{first}; did you mean {near}?" if near else f"{first}; 'secchi tables' lists them"


def _table_names(connection: DuckDBPyConnection) -> list[str]:
    found = connection.execute("SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal")
    return [str(name) for (name,) in found.fetchall()]


def _nearest(name: str, tables: list[str]) -> str | None:
    by_last = {table.split(".")[-1]: table for table in tables}
    near = difflib.get_close_matches(name, tables, 1) or difflib.get_close_matches(name.split(".")[-1], by_last, 1)
    return by_last.get(near[0], near[0]) if near else None
