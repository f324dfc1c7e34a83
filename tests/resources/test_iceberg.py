"""The private parts of pyiceberg that are wrapped: they do what its documentation and the Iceberg specification say."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import PrimitiveType

from resources.durable_io import local_path
from resources.iceberg import ROW_GROUP_ROWS, ReplaceFiles, StagedTransaction, metadata_location, write_data_file
from resources.lakehouse import Lakehouse
from tests.resources.lake import FLAT, READINGS, START, append, rows


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(tmp_path)


def stamped(numbers: range, batch_id: int = 1) -> pl.DataFrame:
    return rows(list(numbers)).with_columns(batch_id=pl.lit(batch_id, pl.Int64))


def parquet(file: DataFile) -> pq.ParquetFile:
    path = local_path(file.file_path)
    assert path is not None and path.stat().st_size == file.file_size_in_bytes
    return pq.ParquetFile(path)


def bound(table: Table, limits: dict[int, bytes], column: str) -> Any:
    field = table.schema().find_field(column)
    assert isinstance(field.field_type, PrimitiveType)
    return from_bytes(field.field_type, limits[field.field_id])


def test_data_file_carries_the_field_ids_of_the_schema(lake: Lakehouse) -> None:
    """Readers match columns by id, not by name (specification, "Column Projection")."""
    table = lake.table(READINGS)
    with parquet(write_data_file(table, stamped(range(5)))) as file:
        found = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in file.schema_arrow}
    assert found == {field.name: field.field_id for field in table.schema().fields}


def test_data_file_has_statistics_but_of_wide_columns(lake: Lakehouse) -> None:
    table = lake.table(READINGS)
    frame = stamped(range(3, 8), 4).with_columns(value=pl.when(pl.col("value") != 5).then("value"))
    file = write_data_file(table, frame)
    ids = {field.name: field.field_id for field in table.schema().fields}
    assert (file.record_count, file.value_counts[ids["value"]], file.null_value_counts[ids["value"]]) == (5, 5, 1)
    limits = {
        c: (bound(table, file.lower_bounds, c), bound(table, file.upper_bounds, c)) for c in ("value", "batch_id")
    }
    assert limits == {"value": (3.0, 7.0), "batch_id": (4, 4)}
    minute = 60_000_000
    first = int(START.timestamp()) * 1_000_000
    assert bound(table, file.lower_bounds, "at") == first + 3 * minute
    assert bound(table, file.upper_bounds, "at") == first + 7 * minute
    assert ids["raw"] not in file.lower_bounds and ids["raw"] not in file.upper_bounds


def test_data_file_has_the_partition_of_its_rows(lake: Lakehouse) -> None:
    file = write_data_file(lake.table(READINGS), stamped(range(60, 90)))
    hours = int((START + timedelta(hours=1)).timestamp()) // 3600
    assert (file.partition[0], file.partition[1]) == ("a", hours)


def test_rows_of_two_partitions_are_refused(lake: Lakehouse) -> None:
    """Written as one file they would be hidden from a reader of the other partition."""
    with pytest.raises(ValueError, match="more than one partition"):
        write_data_file(lake.table(READINGS), stamped(range(50, 70)))


def test_rows_stay_in_their_order_in_small_row_groups(lake: Lakehouse) -> None:
    count = 2 * ROW_GROUP_ROWS + 1
    frame = pl.select(value=pl.int_range(count, 0, -1).cast(pl.Float64)).with_columns(
        sensor=pl.lit("a"), at=pl.lit(START), raw=pl.lit(b""), batch_id=pl.lit(1, pl.Int64)
    )
    with parquet(write_data_file(lake.table(FLAT), frame)) as file:
        assert file.metadata.num_row_groups == 3
        assert file.read(["value"])["value"].to_pylist() == frame["value"].to_list()


def test_file_names_are_never_the_same(lake: Lakehouse) -> None:
    """A second attempt must not meet the first one's file."""
    table = lake.table(READINGS)
    assert len({write_data_file(table, stamped(range(2))).file_path for _ in range(5)}) == 5


def test_pyiceberg_reads_what_was_written(lake: Lakehouse) -> None:
    """Its own reader, which looks columns up by id and prunes by bounds and partitions."""
    append(lake, READINGS, rows(range(100)))
    table = lake.catalog.load_table(READINGS.identifier)
    found = pl.DataFrame(table.scan(row_filter="sensor = 'a' and value >= 90").to_arrow()).sort("at")
    assert found.select("value").equals(rows(range(90, 100)).select("value"))
    assert len(list(table.scan(row_filter="value >= 90").plan_files())) == 1
    assert list(table.scan(row_filter="sensor = 'b'").plan_files()) == []


def test_metadata_location_follows_every_commit(lake: Lakehouse) -> None:
    assert metadata_location(lake.catalog, "silver", "readings") is None
    seen = []
    for number in range(3):
        append(lake, READINGS, rows([number]))
        seen.append(metadata_location(lake.catalog, "silver", "readings"))
        assert seen[-1] == lake.catalog.load_table(READINGS.identifier).metadata_location
    assert len(set(seen)) == 3
    assert metadata_location(lake.catalog, "silver", "other") is None


def replace(table: Table, add: list[DataFile], delete: list[DataFile]) -> None:
    with table.transaction() as transaction, ReplaceFiles(transaction, table, {}) as producer:
        for file in add:
            producer.append_data_file(file)
        for file in delete:
            producer.delete_data_file(file)


def planned(table: Table) -> dict[str, DataFile]:
    """The files of the current snapshot, by location, as a plan gets them."""
    return {task.file.file_path: task.file for task in table.scan().plan_files()}


def values(lake: Lakehouse) -> list[float]:
    """What pyiceberg itself reads."""
    found = pl.DataFrame(lake.catalog.load_table(FLAT.identifier).scan().to_arrow())
    return found["value"].sort().to_list()


def test_replacing_files_keeps_the_manifest_list_short(lake: Lakehouse) -> None:
    """Over 60 commits, each of which replaces one file and adds another."""
    lake.table(FLAT)
    longest, last = 0, ""
    for number in range(60):
        table = lake.catalog.load_table(FLAT.identifier)
        kept = write_data_file(table, stamped(range(number, number + 1)))
        again = write_data_file(table, stamped(range(1000, 1001)))
        replace(table, [kept, again], [planned(table)[last]] if last else [])
        last = again.file_path
        snapshot = table.current_snapshot()
        assert snapshot is not None and snapshot.summary is not None
        longest = max(longest, len(snapshot.manifests(table.io)))
        assert snapshot.summary.operation == (Operation.OVERWRITE if number else Operation.APPEND)
        assert snapshot.summary["total-records"] == str(number + 2)
    assert longest <= 21, "commit.manifest.min-count-to-merge is 20"
    assert values(lake) == [*map(float, range(60)), 1000.0]


def test_file_that_is_not_there_cannot_be_replaced(lake: Lakehouse) -> None:
    """Else the rows of a file that was merged away meanwhile would be there twice."""
    table = lake.table(FLAT)
    replace(table, [write_data_file(table, stamped(range(n, n + 1))) for n in range(2)], [])
    old = list(planned(table).values())
    replace(table, [write_data_file(table, stamped(range(2)))], old)
    with pytest.raises(ValidationException):
        replace(table, [write_data_file(table, stamped(range(1)))], old[:1])
    assert values(lake) == [0, 1]


def test_replacing_on_a_stale_table_fails(lake: Lakehouse) -> None:
    """pyiceberg's own retries are off: what it would do again is decided anew."""
    table = lake.table(FLAT)
    replace(table, [write_data_file(table, stamped(range(1)))], [])
    stale = lake.catalog.load_table(FLAT.identifier)
    replace(table, [write_data_file(table, stamped(range(1, 2)))], [])
    with pytest.raises(CommitFailedException):
        replace(stale, [write_data_file(stale, stamped(range(2, 3)))], [])
    assert values(lake) == [0, 1]


def test_a_staged_transaction_sees_each_update_and_copies_the_metadata_once_for_it(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = 0
    real: Any = vars(Transaction)["table_metadata"].fget

    def counted(transaction: Transaction) -> Any:
        nonlocal copies
        copies += 1
        return real(transaction)

    monkeypatch.setattr(Transaction, "table_metadata", property(counted))
    with StagedTransaction(lake.table(READINGS)) as transaction:
        transaction.set_properties({"one": "1"})
        for _ in range(5):
            assert transaction.table_metadata.properties["one"] == "1"
        transaction.set_properties({"two": "2"})
        assert {"one", "two"} <= transaction.table_metadata.properties.keys()
    assert {"one", "two"} <= lake.catalog.load_table(READINGS.identifier).properties.keys()
    assert copies <= 4
