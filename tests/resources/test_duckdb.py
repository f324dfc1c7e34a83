"""DuckDB over the lakehouse: what it shows, and that nothing else can be read and nothing written."""

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from resources.commit import Commit
from resources.duckdb import Views, _SharedReader, connect, stored_tables
from resources.lakehouse import Lakehouse
from resources.stored_table import StoredTable
from resources.wiring import LakehouseDuckDB

START = datetime(2026, 3, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
READINGS = StoredTable(
    "silver",
    "readings",
    {"sensor": pl.String(), "observed_at": TIME, "value": pl.Float64(), "raw": pl.Binary(), "batch_id": pl.Int64()},
    sort=("observed_at",),
)
NEVER = StoredTable("gold", "never", {"observed_at": TIME, "names": pl.List(pl.String()), "count": pl.Int32()})


def rows(count: int, first: int = 0) -> pl.DataFrame:
    numbers = range(first, first + count)
    return pl.DataFrame(
        {
            "sensor": [f"s{i % 5}" for i in numbers],
            "observed_at": [START + timedelta(seconds=i) for i in numbers],
            "value": [float(i) for i in numbers],
            "raw": [str(i).encode() for i in numbers],
        }
    )


def append(lakehouse: Lakehouse, table: StoredTable, frame: pl.DataFrame) -> None:
    head = lakehouse.head(table)
    files = lakehouse.write(table, frame, head.batch_id + 1)
    frm = head.markers.get("test", {})
    lakehouse.commit_once(Commit(table, "test", frm, {"n": head.batch_id + 1}, head.batch_id + 1, files))


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    made = Lakehouse(tmp_path / "lake")
    append(made, READINGS, rows(100))
    append(made, READINGS, rows(50, first=100))
    return made


@pytest.fixture
def connection(lakehouse: Lakehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(lakehouse, [READINGS, NEVER]) as opened:
        yield opened


_seek = _SharedReader.seek


def _seek_and_let_others_in(reader: _SharedReader, offset: int, whence: int = 0) -> int:
    position = _seek(reader, offset, whence)
    time.sleep(0.0001)
    return position


def contents(root: Path) -> dict[str, str]:
    """Every file under a folder with the hash of its bytes."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_distances_can_be_asked_for(connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.sql("SELECT round(great_circle_km(0, 0, 0, 90))").fetchall() == [(10008.0,)]


def test_view_has_the_rows_of_every_file(connection: duckdb.DuckDBPyConnection) -> None:
    got = connection.execute(
        "SELECT count(*), sum(value), min(observed_at), max(observed_at) FROM silver.readings"
    ).fetchone()
    assert got == (150, sum(range(150)), START, START + timedelta(seconds=149))


def test_times_are_utc_wherever_the_user_is(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Africa/Johannesburg")
    with connect(lakehouse, [READINGS]) as opened:
        shown = opened.execute("SELECT min(observed_at)::VARCHAR FROM silver.readings").fetchone()
    assert shown == ("2026-03-01 00:00:00+00",)


def test_table_that_nothing_has_written_is_an_empty_typed_view(connection: duckdb.DuckDBPyConnection) -> None:
    described = connection.execute("DESCRIBE gold.never").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == [
        ("observed_at", "TIMESTAMP WITH TIME ZONE"),
        ("names", "VARCHAR[]"),
        ("count", "INTEGER"),
    ]
    assert connection.execute("FROM gold.never").fetchall() == []


def test_connecting_creates_no_table(lakehouse: Lakehouse, connection: duckdb.DuckDBPyConnection) -> None:
    assert [t.identifier for t in stored_tables(lakehouse)] == ["silver.readings"]


def test_only_declared_columns_and_null_where_a_file_is_older(lakehouse: Lakehouse) -> None:
    newer = StoredTable("silver", "readings", {"value": pl.Float64(), "unit": pl.String(), "batch_id": pl.Int64()})
    with connect(lakehouse, [newer]) as opened:
        relation = opened.sql("FROM silver.readings WHERE batch_id = 2 ORDER BY value LIMIT 1")
        assert relation.columns == ["value", "unit", "batch_id"]
        assert relation.fetchall() == [(100.0, None, 2)]


def test_stored_column_from_before_the_files_is_null(lakehouse: Lakehouse) -> None:
    wider = StoredTable("silver", "readings", {**READINGS.schema, "unit": pl.String()}, sort=("observed_at",))
    reopened = Lakehouse(lakehouse.path)
    append(reopened, wider, rows(10, first=150).with_columns(unit=pl.lit("BAR")))
    with connect(reopened, [wider]) as opened:
        got = opened.execute("SELECT unit, count(*) FROM silver.readings GROUP BY unit ORDER BY unit").fetchall()
    assert got == [("BAR", 10), (None, 150)]


def test_retracted_rows_are_hidden(tmp_path: Path) -> None:
    pairs = StoredTable("gold", "pairs", {"n": pl.Int64(), "is_retracted": pl.Boolean(), "batch_id": pl.Int64()})
    lakehouse = Lakehouse(tmp_path)
    append(lakehouse, pairs, pl.DataFrame({"n": [1, 2], "is_retracted": [False, True]}))
    with connect(lakehouse, [pairs]) as opened:
        assert opened.execute("SELECT n FROM gold.pairs").fetchall() == [(1,)]


def test_views_are_rebuilt_only_for_a_new_snapshot(lakehouse: Lakehouse) -> None:
    views = Views(lakehouse, [READINGS, NEVER])
    assert views.refresh() == []
    append(lakehouse, READINGS, rows(5, first=150))
    assert views.connection.execute("SELECT count(*) FROM silver.readings").fetchone() == (150,)
    assert views.refresh() == ["silver.readings"]
    assert views.connection.execute("SELECT count(*) FROM silver.readings").fetchone() == (155,)
    assert views.refresh() == []
    views.connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{file}'",
        "COPY (SELECT 1) TO 'lakehouse://silver.readings/{name}'",
        "COPY (SELECT 1) TO 'lakehouse://silver.readings/new.parquet'",
        "COPY (SELECT 1) TO '{warehouse}/new.csv'",
        "COPY (SELECT 1) TO '{outside}/new.csv'",
        "EXPORT DATABASE '{warehouse}/export'",
        "EXPORT DATABASE 'lakehouse://silver.readings'",
        "ATTACH '{warehouse}/new.db'",
        "ATTACH 'lakehouse://silver.readings/new.db'",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_text('{catalog}')",
        "SELECT * FROM read_parquet('lakehouse://silver.readings/../../catalog.db')",
        "SELECT * FROM read_parquet('lakehouse://silver.readings/*')",
        "SET enable_external_access = true",
        "SET disabled_filesystems = ''",
        "INSTALL httpfs",
        "DELETE FROM silver.readings",
        "INSERT INTO silver.readings VALUES (1)",
    ],
)
def test_nothing_is_written_and_nothing_else_is_read(
    lakehouse: Lakehouse, connection: duckdb.DuckDBPyConnection, tmp_path: Path, statement: str
) -> None:
    file = lakehouse.files(READINGS)[0].file_path.removeprefix("file://")
    before, outside = contents(lakehouse.path), tmp_path / "outside"
    outside.mkdir()
    names = {
        "file": file,
        "name": Path(file).name,
        "warehouse": lakehouse.path / "warehouse",
        "catalog": lakehouse.path / "catalog.db",
        "outside": outside,
    }
    with pytest.raises(duckdb.Error):
        connection.execute(statement.format(**names)).fetchall()
    assert contents(lakehouse.path) == before
    assert not list(outside.iterdir())
    assert connection.execute("SELECT count(*) FROM silver.readings").fetchone() == (150,)


def test_threads_that_read_one_file_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_SharedReader, "seek", _seek_and_let_others_in)
    lakehouse = Lakehouse(tmp_path)
    count = 400_000  # several row groups, so that DuckDB reads the file with all its threads
    numbers = pl.DataFrame({"n": range(count)}).with_columns(text=(pl.col("n") * 7919).cast(pl.String))
    wide = StoredTable("gold", "wide", {"n": pl.Int64(), "text": pl.String(), "batch_id": pl.Int64()})
    append(lakehouse, wide, numbers)
    want = (count, sum(range(count)), numbers["text"].str.len_bytes().sum())
    for _ in range(3):
        with connect(lakehouse, [wide]) as opened:
            opened.execute("SELECT count(*), sum(n), sum(length(text)) FROM gold.wide")
            assert opened.fetchone() == want


def test_dagster_resource_serves_views_and_closes(lakehouse: Lakehouse) -> None:
    resource = LakehouseDuckDB(lakehouse=str(lakehouse.path))
    with pytest.raises(ZeroDivisionError), resource.get_connection() as opened:
        assert opened.execute("SELECT count(*) FROM silver.readings").fetchone() == (150,)
        raise ZeroDivisionError
    with pytest.raises(duckdb.ConnectionException):
        opened.execute("SELECT 1")
