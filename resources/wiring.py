"""Dagster's faces of our resources."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection

from resources.duckdb import Views, stored_tables
from resources.lakehouse import Lakehouse


class LakehouseDuckDB(DuckDBResource):
    """DuckDB over a lakehouse, read-only: dagster-duckdb's resource, whose connections have a view for each table."""

    database: str = ":memory:"
    lakehouse: str

    @contextmanager
    def get_connection(self) -> Iterator[DuckDBPyConnection]:
        """A connection to the current snapshots, closed at the end."""
        with super().get_connection() as connection:
            try:
                lakehouse = Lakehouse(Path(self.lakehouse))
                yield Views(lakehouse, stored_tables(lakehouse), connection).connection
            finally:
                connection.close()  # dagster-duckdb leaves it open after an exception
